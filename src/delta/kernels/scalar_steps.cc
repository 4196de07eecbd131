// The definitions of find_tables, take_steps and make_steps, in plain C++.
#include "base/bytes.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

size_t dense_words(const ClassWindow& window, size_t n) {
  return window.before[0][ceil_div(n, kGroupElements)];
}

// What the words before those of a window say of them, if they are known.
template <class W, bool kKnown>
class Past {
 public:
  Past(const StepCoding& coding, const std::byte* earlier)
      : coding_(coding), ranks_(coding.order), earlier_(earlier) {}
  Momentum<W> momentum(size_t at, W word) const {
    if constexpr (!kKnown) return {};
    return Momentum<W>(static_cast<W>(ranks_.step(load_le<W>(earlier_ + at), word)));
  }
  unsigned table(W word, const Momentum<W>& momentum) const {
    const unsigned table = coding_.table_of(word);
    return kKnown ? table * kMomentumContexts + momentum.context : table;
  }

 private:
  const StepCoding& coding_;
  const WordRanks<W> ranks_;
  const std::byte* const earlier_;
};

template <class W, bool kEarlier>
void find_tables(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                 size_t n, const ClassWindow& window, uint8_t* tables) {
  const size_t dense = dense_words(window, n);
  const Past<W, kEarlier> past(coding, earlier);
  for (size_t j = 0; j < dense; ++j) {
    const size_t at = window.lowest[j] * sizeof(W);
    const auto word = load_le<W>(words + at);
    tables[j] = static_cast<uint8_t>(past.table(word, past.momentum(at, word)));
  }
}

// By step + 4, for steps of at most four.
constexpr uint8_t kSmallSymbols[2 * kExactSteps + 1] = {8, 6, 4, 2, 0, 1, 3, 5, 7};

template <class W, bool kEarlier>
size_t take_steps(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                  const std::byte* next, size_t n, const ClassWindow& window, uint16_t* codes,
                  std::byte* wide_steps) {
  const size_t dense = dense_words(window, n);
  const WordRanks<W> ranks(coding.order);
  const Past<W, kEarlier> past(coding, earlier);
  size_t wide = 0;
  for (size_t j = 0; j < dense; ++j) {
    const size_t at = window.lowest[j] * sizeof(W);
    const auto from = load_le<W>(words + at);
    const Momentum<W> momentum = past.momentum(at, from);
    const W step = momentum.rest_of(static_cast<W>(ranks.step(from, load_le<W>(next + at))));
    const auto small = static_cast<W>(step + kExactSteps);
    unsigned symbol = 0;
    if (small <= 2 * kExactSteps) {
      symbol = kSmallSymbols[small];
    } else {
      symbol = step_symbol(step).symbol;
      store_le(wide_steps + wide++ * sizeof(W), step);
    }
    codes[j] = static_cast<uint16_t>(past.table(from, momentum) * kRansTableSymbols + symbol);
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

template <class W, bool kEarlier>
size_t make_steps(const StepCoding& coding, std::byte* words, const std::byte* earlier, size_t n,
                  const ClassWindow& window, const uint8_t* symbols, RawBits* raw) {
  const size_t dense = dense_words(window, n);
  const WordRanks<W> ranks(coding.order);
  const Past<W, kEarlier> past(coding, earlier);
  uint16_t wide[kWindowElements + 1];
  size_t wides = 0;
  size_t changed = 0;
  for (size_t j = 0; j < dense; ++j) {
    const unsigned symbol = symbols[j];
    const size_t at = window.lowest[j] * sizeof(W);
    const auto from = load_le<W>(words + at);
    const bool is_wide = symbol >= kFirstWideSymbol;
    const W made = past.momentum(at, from).step_of(static_cast<W>(kSmallSteps[symbol]));
    const W step = is_wide ? W{0} : made;
    store_le(words + at, ranks.add(from, step));
    changed += step != 0 ? 1 : 0;
    wide[wides] = static_cast<uint16_t>(j);
    wides += is_wide ? 1 : 0;
  }
  for (size_t i = 0; i < wides; ++i) {
    const size_t at = window.lowest[wide[i]] * sizeof(W);
    const auto from = load_le<W>(words + at);
    W rest;
    if (!take_wide_step(symbols[wide[i]], raw, &rest)) return kCutOff;
    const W step = past.momentum(at, from).step_of(rest);
    store_le(words + at, ranks.add(from, step));
    changed += !kEarlier || step != 0 ? 1 : 0;
  }
  return changed;
}

// With and without the words of the version before.
template <class W>
void find_tables_of(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                    size_t n, const ClassWindow& window, uint8_t* tables) {
  const auto find = earlier == nullptr ? find_tables<W, false> : find_tables<W, true>;
  find(coding, words, earlier, n, window, tables);
}
template <class W>
size_t take_steps_of(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                     const std::byte* next, size_t n, const ClassWindow& window, uint16_t* codes,
                     std::byte* wide_steps) {
  const auto take = earlier == nullptr ? take_steps<W, false> : take_steps<W, true>;
  return take(coding, words, earlier, next, n, window, codes, wide_steps);
}
template <class W>
size_t make_steps_of(const StepCoding& coding, std::byte* words, const std::byte* earlier, size_t n,
                     const ClassWindow& window, const uint8_t* symbols, RawBits* raw) {
  const auto make = earlier == nullptr ? make_steps<W, false> : make_steps<W, true>;
  return make(coding, words, earlier, n, window, symbols, raw);
}

}  // namespace

const Kernels::FindTables kScalarFindTables[4] = {find_tables_of<uint8_t>, find_tables_of<uint16_t>,
                                                  find_tables_of<uint32_t>,
                                                  find_tables_of<uint64_t>};
const Kernels::TakeSteps kScalarTakeSteps[4] = {take_steps_of<uint8_t>, take_steps_of<uint16_t>,
                                                take_steps_of<uint32_t>, take_steps_of<uint64_t>};
const Kernels::MakeSteps kScalarMakeSteps[4] = {make_steps_of<uint8_t>, make_steps_of<uint16_t>,
                                                make_steps_of<uint32_t>, make_steps_of<uint64_t>};

}  // namespace siltstone
