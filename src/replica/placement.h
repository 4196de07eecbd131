// Where the words of one tensor lie in a caller's memory: its slots, checked and put in order.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "siltstone/replica.h"
#include "siltstone/result.h"

namespace siltstone {

// Threads: const methods on many threads; different tensors at the same time.
class Placement {
 public:
  // A tile with the memory that it lies in.
  struct Part {
    SlotTile tile;
    MutByteSpan destination;
  };

  // kInvalidArgument if a tile leaves the tensor or its destination, counts an element twice, or if
  // the parts together leave out an element and `share` is not set.
  static Result<Placement> make(const TensorInfo& tensor, std::vector<Part> parts,
                                bool share = false);

  // The tensor's bytes, if all lie one behind the other and nowhere else; else empty.
  MutByteSpan resident() const { return resident_; }
  const std::vector<Part>& parts() const { return parts_; }
  unsigned word_bytes() const { return word_bytes_; }

  // The tensor's bytes from `offset_bytes` on; what has no place is left as it is. REQUIRES: whole
  // words, inside the tensor.
  void gather(uint64_t offset_bytes, MutByteSpan out) const;
  // Whether every place of these bytes holds them. REQUIRES: as gather().
  bool holds(uint64_t offset_bytes, ByteSpan bytes) const;

  // Those that have elements of [begin, end), and perhaps some more.
  std::vector<const Part*> parts_within(uint64_t begin, uint64_t end) const;
  // Which element of its destination the tile puts a source element at, if it has it.
  static std::optional<uint64_t> place_in(const SlotTile& tile, uint64_t element);

 private:
  Status check(const TensorInfo& tensor, bool share) const;
  void gather_part(const Part& part, uint64_t begin, MutByteSpan out) const;
  uint64_t placed_words(uint64_t words) const;  // REQUIRES: the tiles are checked
  void find_resident(const TensorInfo& tensor);

  std::vector<Part> parts_;  // by source_begin
  MutByteSpan resident_;
  unsigned word_bytes_ = 1;
};

// kInvalidArgument if two places of any tensors share a byte: a commit would write one over the
// other. Whole tensors on the same memory are tied: returns for each the first that lies there,
// itself if it is that one.
Result<std::vector<size_t>> find_ties(std::span<const Placement> placements);

}  // namespace siltstone
