#include "delta/codecs/frequencies.h"

#include <algorithm>
#include <bit>

namespace siltstone {
namespace {

constexpr unsigned kFrequencyRawBits = 3;

// Bits that a symbol of each frequency takes, in units of 1/256, by repeated squaring.
constexpr std::array<uint32_t, kTotal + 1> kCosts = [] {
  std::array<uint32_t, kTotal + 1> costs{};
  for (uint32_t frequency = 1; frequency <= kTotal; ++frequency) {
    const auto octave = static_cast<unsigned>(std::bit_width(frequency)) - 1;
    uint64_t mantissa = uint64_t{frequency} << (31 - octave);  // in [2^31, 2^32)
    uint32_t log2 = octave;
    for (unsigned bit = 0; bit < kCostFraction; ++bit) {
      mantissa = mantissa * mantissa >> 31;
      const bool carry = (mantissa >> 32) != 0;
      log2 = log2 * 2 + (carry ? 1 : 0);
      if (carry) mantissa >>= 1;
    }
    costs[frequency] = (kLog2Total << kCostFraction) - log2;
  }
  return costs;
}();
static_assert(kCosts[kTotal] == 0 && kCosts[kTotal / 2] == 256 && kCosts[1] == 2560);

}  // namespace

void scale_frequencies(std::span<const uint32_t> counts, std::span<uint16_t> frequencies) {
  uint64_t total = 0;
  for (const uint32_t count : counts) total += count;
  int32_t missing = kTotal;
  for (size_t s = 0; s < counts.size(); ++s) {
    frequencies[s] = 0;
    if (counts[s] == 0) continue;
    const uint64_t share = (2 * uint64_t{counts[s]} * kTotal + total) / (2 * total);
    frequencies[s] = static_cast<uint16_t>(std::max<uint64_t>(share, 1));
    missing -= frequencies[s];
  }
  // The largest makes up for rounding, giving at most half of what it has at a time.
  while (missing != 0) {
    uint16_t& largest = *std::ranges::max_element(frequencies);
    const int32_t change = std::max(missing, -(int32_t{largest} / 2));
    largest = static_cast<uint16_t>(largest + change);
    missing -= change;
  }
}

uint32_t symbol_cost(uint32_t frequency) {
  return kCosts[frequency];
}

// Three low bits, then the rest plus one in Elias's gamma code.
unsigned frequency_bits(uint32_t frequency) {
  const auto width = static_cast<unsigned>(std::bit_width((frequency >> kFrequencyRawBits) + 1));
  return kFrequencyRawBits + 2 * width - 1;
}

void put_frequency(uint32_t frequency, BitWriter* bits) {
  bits->put(frequency & ((1U << kFrequencyRawBits) - 1), kFrequencyRawBits);
  const uint32_t rest = (frequency >> kFrequencyRawBits) + 1;
  const auto zeros = static_cast<unsigned>(std::bit_width(rest)) - 1;
  bits->put(uint64_t{1} << zeros, zeros + 1);
  bits->put(rest - (1U << zeros), zeros);
}

// At most kTotal, else more than that.
uint32_t get_frequency(BitReader* bits) {
  const auto low = static_cast<uint32_t>(bits->get(kFrequencyRawBits));
  unsigned zeros = 0;
  while (zeros < kLog2Total && bits->get(1) == 0) ++zeros;
  const auto rest = (uint32_t{1} << zeros) + static_cast<uint32_t>(bits->get(zeros));
  return (rest - 1) << kFrequencyRawBits | low;
}

void fill_slots(std::span<const uint16_t> frequencies, SlotTable* slots) {
  uint32_t begin = 0;
  for (uint32_t s = 0; s < frequencies.size(); ++s) {
    for (uint32_t offset = 0; offset < frequencies[s]; ++offset)
      (*slots)[begin + offset] = pack_slot(s, frequencies[s], offset);
    begin += frequencies[s];
  }
}

}  // namespace siltstone
