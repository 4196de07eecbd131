// The headers of a pack - its own and those of its sections - taken from its bytes as they pass by.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "delta/pack.h"
#include "repo/commit.h"

namespace siltstone {

// Nothing is judged here: where bytes make no sense, or headers have more than `limit_bytes`, it
// ends, and find() has no answer for the rest. Threads: one at a time.
class PackHeads {
 public:
  PackHeads() = default;
  PackHeads(const ObjectRef& object, uint64_t limit_bytes);

  // The pack's next bytes, from its first on.
  void take(ByteSpan piece);
  // The `length_bytes` at `offset_bytes`, if they are the begin of a header; else empty.
  ByteSpan find(uint64_t offset_bytes, uint64_t length_bytes) const;

 private:
  struct Head {
    uint64_t offset_bytes = 0;
    size_t begin = 0;  // in bytes_
    size_t length = 0;
  };
  void keep();
  bool find_next();

  uint64_t object_bytes_ = 0;
  uint64_t limit_bytes_ = 0;
  std::vector<PackIndexEntry> entries_;  // by offset, once the pack's header is known
  size_t entry_ = 0;
  uint64_t left_bytes_ = 0;  // of the entry, from the wanted header on
  // What is wanted: `wanted_` bytes from begin_ on, of which current_ has the first; 0: nothing.
  uint64_t at_ = 0;
  uint64_t begin_ = 0;
  uint64_t wanted_ = 0;
  std::vector<std::byte> current_;
  std::vector<Head> heads_;  // by offset
  std::vector<std::byte> bytes_;
};

}  // namespace siltstone
