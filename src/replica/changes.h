// A staged change as bytes, in the coordinates of the checkpoint, from one process of a host to
// others. They live as long as the change does and are stored nowhere else.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "replica/overwrite.h"
#include "replica/placement.h"
#include "siltstone/result.h"

namespace siltstone {

// The roots of the versions before and after.
struct ChangedRoots {
  std::string from;
  std::string to;
};

// kUnsupported if a tensor does not lie whole and in order, so that an address does not tell which
// element is overwritten.
Result<std::vector<std::byte>> pack_changes(const ChangedRoots& roots,
                                            std::span<const Overwrite> overwrites,
                                            std::span<const Placement> places);

// Reads what pack_changes wrote. Threads: const methods on many threads.
class PackedChanges {
 public:
  // Checks all lengths (kCorrupt). The bytes are borrowed.
  static Result<PackedChanges> open(ByteSpan bytes);

  const ChangedRoots& roots() const { return roots_; }
  size_t size() const { return records_.size(); }
  // Number i: of which tensor, with words of how many bytes.
  size_t tensor(size_t i) const { return records_[i].tensor; }

  // Its changes; `scratch` holds them. kCorrupt unless they lie in a tensor of `words` words of
  // `word_bytes`.
  class Scratch {
   public:
    std::vector<uint16_t> positions;
    std::vector<uint64_t> run_ends;
  };
  Result<StretchChanges> read(size_t i, unsigned word_bytes, uint64_t words,
                              Scratch* scratch) const;

 private:
  struct Record {
    size_t tensor = 0;
    uint64_t offset_bytes = 0;
    uint64_t word_bytes = 0;
    ByteSpan run_ends;
    ByteSpan positions;
    ByteSpan words;
  };
  ChangedRoots roots_;
  std::vector<Record> records_;
};

}  // namespace siltstone
