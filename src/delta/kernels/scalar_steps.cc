// The definitions of find_tables, take_steps and make_steps, in plain C++.
#include "base/bytes.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

size_t dense_words(const ClassWindow& window, size_t n) {
  return window.before[0][ceil_div(n, kGroupElements)];
}

template <class W>
void find_tables(const StepCoding& coding, const std::byte* words, size_t n,
                 const ClassWindow& window, uint8_t* tables) {
  const size_t dense = dense_words(window, n);
  for (size_t j = 0; j < dense; ++j)
    tables[j] =
        static_cast<uint8_t>(coding.table_of(load_le<W>(words + window.lowest[j] * sizeof(W))));
}

// By step + 4, for steps of at most four.
constexpr uint8_t kSmallSymbols[2 * kExactSteps + 1] = {8, 6, 4, 2, 0, 1, 3, 5, 7};

template <class W>
size_t take_steps(const StepCoding& coding, const std::byte* words, const std::byte* next, size_t n,
                  const ClassWindow& window, uint16_t* codes, std::byte* wide_steps) {
  const size_t dense = dense_words(window, n);
  const WordRanks<W> ranks(coding.order);
  size_t wide = 0;
  for (size_t j = 0; j < dense; ++j) {
    const size_t at = window.lowest[j] * sizeof(W);
    const auto from = load_le<W>(words + at);
    const auto step = static_cast<W>(ranks.step(from, load_le<W>(next + at)));
    const auto small = static_cast<W>(step + kExactSteps);
    unsigned symbol = 0;
    if (small <= 2 * kExactSteps) {
      symbol = kSmallSymbols[small];
    } else {
      symbol = step_symbol(step).symbol;
      store_le(wide_steps + wide++ * sizeof(W), step);
    }
    codes[j] = static_cast<uint16_t>(coding.table_of(from) * kRansTableSymbols + symbol);
  }
  return wide;
}

// Steps of the symbols that need no raw bits; 0 for the others.
constexpr int8_t kSmallSteps[256] = {0, 1, -1, 2, -2, 3, -3, 4, -4};

// False if there are not enough bits, or more than a word has would be taken.
template <class W>
bool take_wide_step(unsigned symbol, RawBits* raw, W* step) {
  const unsigned width = symbol == kEscapeSymbol ? 8 * sizeof(W) : raw_bits_of(symbol);
  if (width > 8 * sizeof(W) || width > raw->end - raw->at) return false;
  const std::byte* bytes = raw->bytes + raw->at / 8;
  const unsigned shift = raw->at % 8;
  uint64_t bits = load_le<uint64_t>(bytes) >> shift;
  if (width > 56) bits |= static_cast<uint64_t>(bytes[8]) << 1 << (63 - shift);
  if (width < 64) bits &= (uint64_t{1} << width) - 1;
  raw->at += width;
  *step = symbol == kEscapeSymbol ? static_cast<W>(bits) : step_of_symbol<W>(symbol, bits);
  return true;
}

template <class W>
size_t make_steps(const StepCoding& coding, std::byte* words, size_t n, const ClassWindow& window,
                  const uint8_t* symbols, RawBits* raw) {
  const size_t dense = dense_words(window, n);
  const WordRanks<W> ranks(coding.order);
  uint16_t wide[kWindowElements + 1];
  size_t wides = 0;
  size_t unchanged = 0;
  for (size_t j = 0; j < dense; ++j) {
    const unsigned symbol = symbols[j];
    std::byte* const word = words + window.lowest[j] * sizeof(W);
    store_le(word, ranks.add(load_le<W>(word), static_cast<W>(kSmallSteps[symbol])));
    unchanged += symbol == 0 ? 1 : 0;
    wide[wides] = static_cast<uint16_t>(j);
    wides += symbol >= kFirstWideSymbol ? 1 : 0;
  }
  for (size_t i = 0; i < wides; ++i) {
    std::byte* const word = words + window.lowest[wide[i]] * sizeof(W);
    W step;
    if (!take_wide_step(symbols[wide[i]], raw, &step)) return kCutOff;
    store_le(word, ranks.add(load_le<W>(word), step));
  }
  return dense - unchanged;
}

}  // namespace

const Kernels::FindTables kScalarFindTables[4] = {find_tables<uint8_t>, find_tables<uint16_t>,
                                                  find_tables<uint32_t>, find_tables<uint64_t>};
const Kernels::TakeSteps kScalarTakeSteps[4] = {take_steps<uint8_t>, take_steps<uint16_t>,
                                                take_steps<uint32_t>, take_steps<uint64_t>};
const Kernels::MakeSteps kScalarMakeSteps[4] = {make_steps<uint8_t>, make_steps<uint16_t>,
                                                make_steps<uint32_t>, make_steps<uint64_t>};

}  // namespace siltstone
