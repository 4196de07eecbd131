#include "delta/codecs/step_tables.h"

#include <algorithm>

namespace siltstone {
namespace {

constexpr unsigned kListedSymbols = 23;  // of 16-bit words; the escape comes behind them

template <size_t N>
using Listed = std::array<std::array<uint16_t, kListedSymbols + 1>, N>;

constexpr Listed<kStandardTables> kListedSteps = {{
#include "delta/codecs/step_tables.inc"
}};
constexpr Listed<kMomentumContexts* kStandardTables> kListedMomentum = {{
#include "delta/codecs/momentum_tables.inc"
}};

template <size_t N>
constexpr std::array<StepTable, N> spread_out(const Listed<N>& listed) {
  std::array<StepTable, N> tables{};
  for (size_t i = 0; i < N; ++i) {
    for (unsigned s = 0; s < kListedSymbols; ++s) tables[i].of[s] = listed[i][s];
    tables[i].of[kEscapeSymbol] = listed[i][kListedSymbols];
  }
  return tables;
}
constexpr std::array<StepTable, kStandardTables> kStandard = spread_out(kListedSteps);
constexpr std::array<StepTable, kMomentumContexts* kStandardTables> kMomentum =
    spread_out(kListedMomentum);

}  // namespace

const StepTable& standard_table(unsigned index) {
  return kStandard[index];
}

const StepTable& momentum_table(unsigned index, unsigned context) {
  return kMomentum[index * kMomentumContexts + context];
}

StepTable scaled_table(const SymbolCounts& counts) {
  StepTable table;
  scale_frequencies(counts, table.of);
  return table;
}

std::vector<CountedSymbol> counted_symbols(const SymbolCounts& counts) {
  std::vector<CountedSymbol> symbols;
  for (unsigned s = 0; s < kStepSymbols; ++s)
    if (counts[s] != 0) symbols.push_back({s, counts[s]});
  return symbols;
}

uint64_t coded_cost(std::span<const CountedSymbol> symbols, const StepTable& table,
                    unsigned word_bits) {
  const uint64_t escape = symbol_cost(std::max<uint16_t>(table.of[kEscapeSymbol], 1)) +
                          (uint64_t{word_bits} << kCostFraction);
  uint64_t cost = 0;
  for (const auto& [symbol, count] : symbols) {
    const uint64_t raw = uint64_t{raw_bits_of(symbol)} << kCostFraction;
    cost += count * (table.of[symbol] != 0 ? symbol_cost(table.of[symbol]) + raw : escape);
  }
  return cost;
}

}  // namespace siltstone
