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

constexpr unsigned kCostFraction = 8;

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

const StepTable& standard_table(unsigned index) {
  return kStandard[index];
}

StepTable scaled_table(const SymbolCounts& counts) {
  uint64_t total = 0;
  for (const uint32_t count : counts) total += count;
  StepTable table;
  int32_t missing = kTotal;
  for (unsigned s = 0; s < kStepSymbols; ++s) {
    if (counts[s] == 0) continue;
    const uint64_t share = (2 * uint64_t{counts[s]} * kTotal + total) / (2 * total);
    table.of[s] = static_cast<uint16_t>(std::max<uint64_t>(share, 1));
    missing -= table.of[s];
  }
  // The largest makes up for rounding, giving at most half of what it has at a time.
  while (missing != 0) {
    uint16_t& largest = *std::ranges::max_element(table.of);
    const int32_t change = std::max(missing, -(int32_t{largest} / 2));
    largest = static_cast<uint16_t>(largest + change);
    missing -= change;
  }
  return table;
}

uint64_t coded_cost(const SymbolCounts& counts, const StepTable& table, unsigned word_bits) {
  const uint64_t escape = kCosts[std::max<uint16_t>(table.of[kEscapeSymbol], 1)] +
                          (uint64_t{word_bits} << kCostFraction);
  uint64_t cost = 0;
  for (unsigned s = 0; s < kEscapeSymbol; ++s) {
    if (counts[s] == 0) continue;
    const uint64_t raw = uint64_t{raw_bits_of(s)} << kCostFraction;
    cost += counts[s] * (table.of[s] != 0 ? kCosts[table.of[s]] + raw : escape);
  }
  return cost;
}

void fill_slots(const StepTable& table, SlotTable* slots) {
  uint32_t begin = 0;
  for (unsigned s = 0; s < kStepSymbols; ++s) {
    for (uint32_t offset = 0; offset < table.of[s]; ++offset)
      (*slots)[begin + offset] = pack_slot(s, table.of[s], offset);
    begin += table.of[s];
  }
}

}  // namespace siltstone
