// The definitions of decode_symbols and encode_symbols, in plain C++.
#include "base/bytes.h"
#include "delta/kernels/sets.h"

namespace siltstone {

size_t scalar_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols) {
  const size_t lane_mask = (size_t{1} << input.log2_lanes) - 1;
  size_t used = 0;
  for (size_t j = 0; j < input.n; ++j) {
    uint32_t x = states[j & lane_mask];
    const uint32_t slot = input.slots[input.tables[j] * kRansTotal + (x & (kRansTotal - 1))];
    symbols[j] = static_cast<uint8_t>(slot_symbol(slot));
    x = slot_frequency(slot) * (x >> kRansLog2Total) + slot_offset(slot);
    if (x < (1U << kRansLog2Low)) {
      if (used == input.words_left) return kCutOff;
      x = x << 16 | load_le<uint16_t>(input.words + 2 * used++);
    }
    states[j & lane_mask] = x;
  }
  return used;
}

uint16_t* scalar_encode_symbols(const RansSymbols& input, uint32_t* states, uint16_t* end) {
  const size_t lane_mask = (size_t{1} << input.log2_lanes) - 1;
  for (size_t j = input.n; j-- > 0;) {
    const RansRange range = input.ranges[input.codes[j]];
    uint32_t x = states[j & lane_mask];
    if (x >> (32 - kRansLog2Total) >= range.frequency) {
      *--end = static_cast<uint16_t>(x);
      x >>= 16;
    }
    states[j & lane_mask] =
        ((x / range.frequency) << kRansLog2Total) + x % range.frequency + range.begin;
  }
  return end;
}

}  // namespace siltstone
