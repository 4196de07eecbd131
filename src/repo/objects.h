// Data objects of commits: writing them once, and reading them with proof.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "repo/commit.h"
#include "repo/read_ahead.h"
#include "siltstone/store.h"

namespace siltstone {

// A ByteSource over pieces in memory, in order. Borrows them.
class PiecesSource final : public ByteSource {
 public:
  // `sha256`: theirs together, in hexadecimal, if it is known.
  explicit PiecesSource(std::vector<ByteSpan> pieces, std::string sha256 = {});
  uint64_t size_bytes() const override { return size_bytes_; }
  Status read(uint64_t offset_bytes, MutByteSpan out) const override;
  std::string sha256() const override { return sha256_; }

 private:
  std::string sha256_;
  std::vector<ByteSpan> pieces_;
  std::vector<uint64_t> begins_;
  uint64_t size_bytes_ = 0;
};

// Creates an object under a name that only this attempt uses, sending again after passing failures;
// finding it there after an unknown outcome means that it had arrived.
Status create_unique(Store& store, std::string_view key, const ByteSource& content);

// Creates an object whose name ends in its content's SHA-256, in hexadecimal: one that exists is as
// good. Returns whether it was written now.
Result<bool> create_addressed(Store& store, const std::string& key, const std::string& sha256,
                              ByteSpan content);

// The artifact's data objects, reading its lists if it has them.
Result<std::vector<ObjectRef>> artifact_objects(Store& store, const Artifact& artifact);

// An object that a commit promises.
struct Promised {
  const ObjectRef* object = nullptr;
  std::vector<std::byte>* keep = nullptr;  // where its bytes stay; may be null
  std::string context = {};                // of errors
  // Is shown its bytes in order, before they are proven; may be empty.
  std::function<void(ByteSpan piece)> pass = {};
  // Is called once its bytes are proven, from any thread; may be empty.
  std::function<Status()> proven = {};
};

struct ProveOptions {
  unsigned threads = 0;                                // where the store is local
  uint64_t memory_bytes = uint64_t{128} << 20;         // of pieces that are not kept, elsewhere
  std::function<Status(uint64_t bytes)> arrived = {};  // told of every piece, from many threads
};

// Reads each object once, many at the same time, and compares its SHA-256 with what the commit
// promises while pieces are still arriving. An object that is too short is an error; one that has
// more bytes than promised is one only where a store is local and its length costs nothing: nobody
// reads those bytes (check_length asks for it).
Status prove_objects(Store& store, std::span<const Promised> objects, const ProveOptions& options);
Status prove_object(Store& store, const ObjectRef& object, std::vector<std::byte>* keep);

// Compares the object's length with the promised one.
Status check_length(Store& store, const ObjectRef& object);
// Compares what the object's bytes gave with the promised SHA-256.
Status check_sha256(const ObjectRef& object, const std::string& found);

}  // namespace siltstone
