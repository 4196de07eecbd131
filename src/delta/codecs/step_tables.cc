#include "delta/codecs/step_tables.h"

#include <algorithm>

namespace siltstone {
namespace {

constexpr unsigned kListedSymbols = 23;  // of 16-bit words; the escape comes behind them

constexpr std::array<std::array<uint16_t, kListedSymbols + 1>, kStandardTables> kListed = {{
#include "delta/codecs/step_tables.inc"
}};

constexpr std::array<StepTable, kStandardTables> kStandard = [] {
  std::array<StepTable, kStandardTables> tables{};
  for (unsigned i = 0; i < kStandardTables; ++i) {
    for (unsigned s = 0; s < kListedSymbols; ++s) tables[i].of[s] = kListed[i][s];
    tables[i].of[kEscapeSymbol] = kListed[i][kListedSymbols];
  }
  return tables;
}();

}  // namespace

const StepTable& standard_table(unsigned index) {
  return kStandard[index];
}

StepTable scaled_table(const SymbolCounts& counts) {
  StepTable table;
  scale_frequencies(counts, table.of);
  return table;
}

uint64_t coded_cost(const SymbolCounts& counts, const StepTable& table, unsigned word_bits) {
  const uint64_t escape = symbol_cost(std::max<uint16_t>(table.of[kEscapeSymbol], 1)) +
                          (uint64_t{word_bits} << kCostFraction);
  uint64_t cost = 0;
  for (unsigned s = 0; s < kEscapeSymbol; ++s) {
    if (counts[s] == 0) continue;
    const uint64_t raw = uint64_t{raw_bits_of(s)} << kCostFraction;
    cost += counts[s] * (table.of[s] != 0 ? symbol_cost(table.of[s]) + raw : escape);
  }
  return cost;
}

}  // namespace siltstone
