// Words that wait to be written into a caller's memory: all that a commit does.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "replica/placement.h"

namespace siltstone {

// Words for places that lie near each other. Two forms: runs of 65,536 places that count from one
// run to the next, two bytes a place, for memory that lies as the tensor does; else offsets.
struct Overwrite {
  std::byte* base = nullptr;
  unsigned word_bytes = 1;
  std::vector<uint16_t> positions;  // in runs that end at run_ends
  std::vector<uint64_t> run_ends;
  std::vector<uint32_t> offsets;  // in words from `base`
  std::vector<std::byte> words;

  uint64_t memory_bytes() const;
  // Plain stores into memory that is known to be there.
  void write() const;
};

// Changes of one stretch of a tensor: `positions` in runs of kRunElements that end at `run_ends`,
// and the new words. Borrowed.
struct StretchChanges {
  uint64_t offset_bytes = 0;
  std::span<const uint16_t> positions;
  std::span<const uint64_t> run_ends;
  ByteSpan words;
};

// All that a commit writes. Threads: add() on many threads.
class Overwrites {
 public:
  explicit Overwrites(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // What the changes overwrite where their words lie. kUnsupported if that is more than the limit.
  Status add(const Placement& placement, const StretchChanges& changes);
  // Nothing here can fail half-way.
  void write() const;
  const std::vector<Overwrite>& all() const { return all_; }

 private:
  const uint64_t limit_bytes_;
  std::mutex mutex_;
  std::vector<Overwrite> all_;
  uint64_t memory_bytes_ = 0;
};

}  // namespace siltstone
