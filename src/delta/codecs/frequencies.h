// Symbol frequencies of entropy-coded parts: how they are made, what they cost, how they are sent
// (docs/format/delta_pack.md, "class" and "dense").
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "delta/codecs/bits.h"
#include "delta/kernels/rans.h"

namespace siltstone {

inline constexpr unsigned kLog2Total = kRansLog2Total;
inline constexpr uint32_t kTotal = kRansTotal;  // what the frequencies of a table add up to

// Scales counts to that sum, giving at least 1 to what occurs and 0 to the rest. REQUIRES: at most
// 256 counts, not all 0.
void scale_frequencies(std::span<const uint32_t> counts, std::span<uint16_t> frequencies);

// What coding a symbol takes, in units of 1/256 bit. REQUIRES: 1 <= frequency <= kTotal.
inline constexpr unsigned kCostFraction = 8;
uint32_t symbol_cost(uint32_t frequency);

unsigned frequency_bits(uint32_t frequency);
void put_frequency(uint32_t frequency, BitWriter* bits);
uint32_t get_frequency(BitReader* bits);  // may be more than kTotal: check the sum

// For decoding: what each slot says (kernels/rans.h). REQUIRES: the sum is kTotal.
using SlotTable = std::array<uint32_t, kTotal>;
void fill_slots(std::span<const uint16_t> frequencies, SlotTable* slots);

}  // namespace siltstone
