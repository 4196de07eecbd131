// Step symbols and the tables that give their probabilities (docs/format/delta_pack.md, "class" and
// "momentum").
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "delta/codecs/frequencies.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {

// How often each symbol occurs among 1,024. The sum is 1,024; 0: cannot occur.
struct StepTable {
  std::array<uint16_t, kStepSymbols> of{};
  bool operator==(const StepTable&) const = default;
};

// The tables that every reader has: number i is for words that move by 2^((i - 16) / 4) units of
// their last place (root mean square).
inline constexpr unsigned kStandardTables = 64;
inline constexpr unsigned kTablesPerBinade = 4;
const StepTable& standard_table(unsigned index);
// The same for what momentum leaves open, by what the word did last time (Momentum::context).
const StepTable& momentum_table(unsigned index, unsigned context);

using SymbolCounts = std::array<uint32_t, kStepSymbols>;

// Counts scaled to a sum of 1,024, at least 1 where a symbol occurs. REQUIRES: counts are not all
// 0.
StepTable scaled_table(const SymbolCounts& counts);

struct CountedSymbol {
  unsigned symbol;
  uint32_t count;
};
// Those that occur.
std::vector<CountedSymbol> counted_symbols(const SymbolCounts& counts);

// What coding the symbols with a table takes, in units of 1/256 bit. `word_bits` follow an escape,
// which stands for the symbols that cannot occur.
uint64_t coded_cost(std::span<const CountedSymbol> symbols, const StepTable& table,
                    unsigned word_bits);

}  // namespace siltstone
