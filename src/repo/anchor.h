// Anchors: a whole state as plain safetensors objects that anybody can load, or packed, as sections
// that are a third smaller (docs/format/repository.md, "Anchors").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "repo/delta_writer.h"
#include "repo/history.h"
#include "repo/objects.h"
#include "repo/state.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

struct AnchorOptions {
  std::string key_prefix;  // keys are this + "a" + number + ".safetensors"
  uint64_t object_bytes = uint64_t{512} << 20;
  unsigned threads = 0;  // where the store is local
  // What the objects that are written at the same time may hold.
  uint64_t memory_bytes = uint64_t{256} << 20;
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
Result<Artifact> write_packed_anchor(Store& store, Uploads& uploads,
                                     std::span<const TensorInfo> tensors, const StateBytes& bytes,
                                     const std::vector<Sum128>& sums, const std::string& root,
                                     DeltaOptions options);

// The words of a plain anchor in the store.
class AnchorBytes final : public StateBytes {
 public:
  // Where words of the anchor lie.
  struct Place {
    size_t object = 0;
    uint64_t offset_bytes = 0;
  };

  // Reads the objects' headers. Nothing is proven yet: whoever reads all words through an
  // AnchorPass proves them on the way, others call prove() first.
  static Result<std::unique_ptr<AnchorBytes>> open(std::shared_ptr<Store> store,
                                                   const Commit& commit,
                                                   std::span<const TensorInfo> tensors,
                                                   const ProveOptions& options);
  // Reads all objects and compares their SHA-256.
  Status prove(const ProveOptions& options) const;

  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override;
  unsigned transfers() const override {
    const StoreTraits traits = store_->traits();
    return traits.local ? 0 : traits.transfers;
  }
  // As the anchor's metadata states them; they lead to the commit's root (checked by open).
  const std::vector<Sum128>& sums() const { return sums_; }
  uint64_t size_bytes() const { return size_bytes_; }

  Store& store() const { return *store_; }
  const std::string& context() const { return context_; }  // of errors
  const std::vector<ObjectRef>& objects() const { return objects_; }
  // SHA-256 of an object's header, to be gone on with.
  Sha256 hash_of_header(size_t object) const { return headers_[object].copy(); }
  Place place(size_t tensor) const { return places_[tensor]; }

 private:
  Status read_headers(const Commit& commit, std::span<const TensorInfo> tensors,
                      const ProveOptions& options);
  Status read_headers(std::span<const TensorInfo> tensors, const ProveOptions& options);
  Status index_object(size_t object, ByteSpan prefix, std::span<const TensorInfo> tensors);

  std::shared_ptr<Store> store_;
  std::string context_;
  std::vector<ObjectRef> objects_;
  std::vector<Sha256> headers_;
  std::vector<Place> places_;
  std::vector<bool> known_;  // places
  std::vector<Sum128> sums_;
  uint64_t size_bytes_ = 0;
};

}  // namespace siltstone
