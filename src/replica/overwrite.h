// Words that wait to be written into a caller's memory: all that a commit does.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "delta/diff.h"
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

// What `changes`, of a stretch that starts at `offset_bytes` of a tensor, overwrites where its
// words lie. Appends to `out`.
void add_overwrites(const Placement& placement, uint64_t offset_bytes, const ChangeList& changes,
                    std::vector<Overwrite>* out);

}  // namespace siltstone
