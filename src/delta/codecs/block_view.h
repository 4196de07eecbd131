// What encoders and decoders of all codecs share: the changes of one block, and the checks that
// every payload begins with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "siltstone/codec.h"
#include "siltstone/result.h"

namespace siltstone {

// Elements of block `block`: all but the last are full.
inline uint64_t block_elements(uint64_t elements, unsigned log2_block, uint64_t block) {
  const uint64_t begin = block << log2_block;
  return std::min(uint64_t{1} << log2_block, elements - begin);
}

// Changes [begin, end) of the change list that belong to block `block`.
struct ChangeRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t count() const { return end - begin; }
};

inline ChangeRange block_changes(const TileChange& change, uint64_t block) {
  const uint64_t runs_per_block = (uint64_t{1} << change.log2_block) / kRunElements;
  const uint64_t first_run = block * runs_per_block;
  const uint64_t last_run =
      std::min<uint64_t>(first_run + runs_per_block, change.run_ends.size()) - 1;
  return {first_run == 0 ? 0 : change.run_ends[first_run - 1], change.run_ends[last_run]};
}

// Calls visit(position inside the block, index into the change list) for the block's changes.
template <class Visit>
void for_each_change(const TileChange& change, uint64_t block, Visit visit) {
  const uint64_t runs_per_block = (uint64_t{1} << change.log2_block) / kRunElements;
  const uint64_t first_run = block * runs_per_block;
  const uint64_t end_run = std::min<uint64_t>(first_run + runs_per_block, change.run_ends.size());
  uint64_t at = first_run == 0 ? 0 : change.run_ends[first_run - 1];
  for (uint64_t run = first_run; run < end_run; ++run) {
    const auto base = static_cast<uint32_t>((run - first_run) * kRunElements);
    for (const uint64_t end = change.run_ends[run]; at < end; ++at)
      visit(base + change.positions[at], at);
  }
}

inline Error corrupt_block(uint64_t block, const std::string& problem) {
  return {Code::kCorrupt, "block " + std::to_string(block) + ": " + problem};
}

// The count of changes a payload begins with: 1 to `elements`.
inline Result<uint32_t> read_changed(uint64_t block, ByteSpan payload, uint64_t elements,
                                     size_t header_bytes) {
  if (payload.size() < header_bytes)
    return corrupt_block(block, "payload of " + std::to_string(payload.size()) +
                                    " bytes, its header alone takes " +
                                    std::to_string(header_bytes));
  const auto changed = load_le<uint32_t>(payload.data());
  if (changed == 0) return corrupt_block(block, "a payload that changes no element");
  if (changed > elements)
    return corrupt_block(block, std::to_string(changed) + " changes stated for " +
                                    std::to_string(elements) + " elements");
  return changed;
}

// What follows a payload's last part must be fewer than four bytes, all zero.
inline Status check_padding(uint64_t block, ByteSpan rest) {
  if (rest.size() >= 4)
    return corrupt_block(block, std::to_string(rest.size()) + " bytes left over at the end");
  if (std::ranges::any_of(rest, [](std::byte byte) { return byte != std::byte{0}; }))
    return corrupt_block(block, "padding that is not zero");
  return {};
}

// Decoders of this version's codecs take no parameters.
inline Status check_no_params(const TileCode& code, std::string_view codec) {
  if (code.params.empty()) return {};
  return Error{Code::kCorrupt, "codec " + std::string(codec) + " takes no parameters, found " +
                                   std::to_string(code.params.size()) + " bytes"};
}

// Calls fn(W{}) with the unsigned integer type W of `word_bytes` bytes.
template <class Fn>
auto with_word_type(unsigned word_bytes, Fn fn) {
  switch (word_bytes) {
    case 1:
      return fn(uint8_t{});
    case 2:
      return fn(uint16_t{});
    case 4:
      return fn(uint32_t{});
    default:
      return fn(uint64_t{});
  }
}

}  // namespace siltstone
