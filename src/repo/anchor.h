// Anchors: a whole state as plain safetensors objects that anybody can load, or packed, as sections
// that are a third smaller (docs/format/repository.md, "Anchors").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "repo/delta_writer.h"
#include "repo/history.h"
#include "repo/state.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

struct AnchorOptions {
  std::string key_prefix;  // keys are this + "a" + number + ".safetensors"
  uint64_t object_bytes = uint64_t{512} << 20;
  unsigned threads = 0;
  Progress progress;
};

// Writes the tensors of `bytes` as anchor objects. `sums` are theirs; that the bytes written have
// these sums is checked while they are written (kConflict: the source changed meanwhile).
Result<Artifact> write_anchor(Store& store, std::span<const TensorInfo> tensors,
                              const StateBytes& bytes, const std::vector<Sum128>& sums,
                              const std::string& root, const AnchorOptions& options);

// The state that is zero everywhere, from which packed anchors lead.
class ZeroBytes final : public StateBytes {
 public:
  Status read(size_t, uint64_t, MutByteSpan out) const override {
    std::memset(out.data(), 0, out.size());
    return {};
  }
};

// Writes the tensors of `bytes` as a packed anchor, with what of `options` does not say from what
// and with which codec. `sums` are checked as write_anchor checks them.
Result<Artifact> write_packed_anchor(Store& store, std::span<const TensorInfo> tensors,
                                     const StateBytes& bytes, const std::vector<Sum128>& sums,
                                     const std::string& root, DeltaOptions options);

// The words of a plain anchor in the store.
class AnchorBytes final : public StateBytes {
 public:
  // Reads the objects' headers; with `prove`, first reads and compares their SHA-256.
  static Result<std::unique_ptr<AnchorBytes>> open(std::shared_ptr<Store> store,
                                                   const Commit& commit,
                                                   std::span<const TensorInfo> tensors, bool prove,
                                                   unsigned threads);

  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override;
  // As the anchor's metadata states them; they lead to the commit's root (checked by open).
  const std::vector<Sum128>& sums() const { return sums_; }
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  struct Place {
    size_t object = 0;
    uint64_t offset_bytes = 0;
    bool known = false;
  };
  Status index_object(size_t object, std::span<const TensorInfo> tensors);

  std::shared_ptr<Store> store_;
  std::vector<ObjectRef> objects_;
  std::vector<Place> places_;
  std::vector<Sum128> sums_;
  uint64_t size_bytes_ = 0;
};

}  // namespace siltstone
