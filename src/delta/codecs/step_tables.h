// Step symbols and the tables that give their probabilities (docs/format/delta_pack.md, "class").
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include "delta/kernels/rans.h"

namespace siltstone {

// 0: unchanged; 1 to 8: a step of +1, -1, +2, -2, ... -4; 9 + q - 2: a step whose size less one has
// q + 1 bits, the lower q of which follow raw, then the sign; the last: the new word follows raw.
inline constexpr unsigned kStepSymbols = 71;
inline constexpr unsigned kEscapeSymbol = kStepSymbols - 1;
inline constexpr unsigned kExactSteps = 4;
inline constexpr unsigned kFirstWideSymbol = 2 * kExactSteps + 1;

struct StepSymbol {
  uint8_t symbol;
  uint8_t raw_bits;
  uint64_t raw;
};

// `step` is a two's complement number of `W`'s size.
template <class W>
constexpr StepSymbol step_symbol(W step) {
  if (step == 0) return {0, 0, 0};
  const bool down = (step >> (8 * sizeof(W) - 1)) != 0;
  const W size = down ? static_cast<W>(W{0} - step) : step;
  if (size <= kExactSteps) return {static_cast<uint8_t>(2 * size - (down ? 0 : 1)), 0, 0};
  const auto beyond = static_cast<uint64_t>(static_cast<W>(size - 1));
  const auto q = static_cast<unsigned>(std::bit_width(beyond)) - 1;
  const uint64_t low = beyond - (uint64_t{1} << q);
  return {static_cast<uint8_t>(kFirstWideSymbol - 2 + q), static_cast<uint8_t>(q + 1),
          low | uint64_t{down} << q};
}

// Raw bits behind a symbol below the escape.
constexpr unsigned raw_bits_of(unsigned symbol) {
  return symbol < kFirstWideSymbol ? 0 : symbol - kFirstWideSymbol + 3;
}

// The inverse of step_symbol. REQUIRES: symbol < kEscapeSymbol.
template <class W>
constexpr W step_of_symbol(unsigned symbol, uint64_t raw) {
  if (symbol < kFirstWideSymbol) {
    const auto size = static_cast<W>((symbol + 1) / 2);
    return symbol % 2 != 0 ? size : static_cast<W>(W{0} - size);
  }
  const unsigned q = symbol - kFirstWideSymbol + 2;
  const uint64_t low = raw & ((uint64_t{1} << q) - 1);
  const auto size = static_cast<W>((uint64_t{1} << q) + low + 1);
  return (raw >> q & 1) != 0 ? static_cast<W>(W{0} - size) : size;
}

// How often each symbol occurs among 1,024. The sum is 1,024; 0: cannot occur.
inline constexpr unsigned kLog2Total = kRansLog2Total;
inline constexpr uint32_t kTotal = kRansTotal;
struct StepTable {
  std::array<uint16_t, kStepSymbols> of{};
  bool operator==(const StepTable&) const = default;
};

// The tables that every reader has: number i is for words that move by 2^((i - 16) / 4) units of
// their last place (root mean square).
inline constexpr unsigned kStandardTables = 64;
inline constexpr unsigned kTablesPerBinade = 4;
const StepTable& standard_table(unsigned index);

using SymbolCounts = std::array<uint32_t, kStepSymbols>;

// Counts scaled to a sum of 1,024, at least 1 where a symbol occurs. REQUIRES: counts are not all
// 0.
StepTable scaled_table(const SymbolCounts& counts);

// What coding the counted symbols with a table takes, in units of 1/256 bit. `word_bits` follow an
// escape, which stands for the symbols that cannot occur.
uint64_t coded_cost(const SymbolCounts& counts, const StepTable& table, unsigned word_bits);

// For decoding: what each of the 1,024 slots says (kernels/rans.h).
using SlotTable = std::array<uint32_t, kTotal>;
void fill_slots(const StepTable& table, SlotTable* slots);

}  // namespace siltstone
