// Data objects of commits: writing them once, and reading them with proof.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "repo/commit.h"
#include "siltstone/store.h"

namespace siltstone {

// A ByteSource over pieces in memory, in order. Borrows them.
class PiecesSource final : public ByteSource {
 public:
  explicit PiecesSource(std::vector<ByteSpan> pieces);
  uint64_t size_bytes() const override { return size_bytes_; }
  Status read(uint64_t offset_bytes, MutByteSpan out) const override;

 private:
  std::vector<ByteSpan> pieces_;
  std::vector<uint64_t> begins_;
  uint64_t size_bytes_ = 0;
};

// Creates an object under a name that only this attempt uses, sending again after passing failures;
// finding it there after an unknown outcome means that it had arrived.
Status create_unique(Store& store, std::string_view key, const ByteSource& content);

// Creates an object whose name is its content's hash: one that exists is as good. Returns whether
// it was written now.
Result<bool> create_addressed(Store& store, std::string_view key, ByteSpan content);

// The artifact's data objects, reading its lists if it has them.
Result<std::vector<ObjectRef>> artifact_objects(Store& store, const Artifact& artifact);

// Reads the object once, in pieces, and compares length and SHA-256 with what the commit promises.
// With `keep`, the bytes stay in it.
Status prove_object(Store& store, const ObjectRef& object, std::vector<std::byte>* keep);

// Error of a read of something a commit promises: absence is corruption.
Error promised(Error error);

}  // namespace siltstone
