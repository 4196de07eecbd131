// Interleaved rANS as the class codec uses it: 32-bit states of at least 2^16, 16-bit words, 10-bit
// probabilities (J. Duda, Asymmetric numeral systems, 2013; F. Giesen, Interleaved entropy coders,
// 2014).
#pragma once

#include <cstddef>
#include <cstdint>

namespace siltstone {

inline constexpr unsigned kRansLog2Total = 10;
inline constexpr uint32_t kRansTotal = 1U << kRansLog2Total;
inline constexpr unsigned kRansLog2Low = 16;
inline constexpr size_t kCutOff = SIZE_MAX;

// What a slot of a table says: the symbol (below 256), its frequency (1 to 1,024), and how far into
// the symbol's range the slot lies (below the frequency).
[[gnu::always_inline]] constexpr uint32_t pack_slot(uint32_t symbol, uint32_t frequency,
                                                    uint32_t offset) {
  return symbol << 21 | frequency << kRansLog2Total | offset;
}
[[gnu::always_inline]] constexpr uint32_t slot_symbol(uint32_t slot) {
  return slot >> 21;
}
[[gnu::always_inline]] constexpr uint32_t slot_frequency(uint32_t slot) {
  return slot >> kRansLog2Total & (2 * kRansTotal - 1);
}
[[gnu::always_inline]] constexpr uint32_t slot_offset(uint32_t slot) {
  return slot & (kRansTotal - 1);
}

struct RansInput {
  const uint32_t* slots;   // of all tables, kRansTotal each
  const uint8_t* tables;   // per symbol: which table it was coded with
  size_t n;                // symbols; number j belongs to state j mod lanes
  unsigned log2_lanes;     // 2 to 5
  const std::byte* words;  // 16 bits each, in the order in which states need them
  size_t words_left;
};

// The slots of a symbol. Encoders never ask for one of frequency 0.
struct RansRange {
  uint16_t frequency = 0;
  uint16_t begin = 0;
};
inline constexpr size_t kRansTableSymbols = 256;  // ranges that each table has

struct RansSymbols {
  const RansRange* ranges;  // of all tables, kRansTableSymbols each
  const uint16_t* codes;    // per symbol: table * kRansTableSymbols + symbol
  size_t n;                 // number j belongs to state j mod lanes
  unsigned log2_lanes;      // 2 to 5
};

// Vector kernels write whole registers: this many words in front of those written must be writable.
inline constexpr size_t kRansSlackWords = 16;

}  // namespace siltstone
