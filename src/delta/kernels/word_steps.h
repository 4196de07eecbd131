// Steps between words in the monotone order of their dtype, and the symbols that the codecs class
// and momentum have for them (docs/format/delta_pack.md, "Steps", "class" and "momentum").
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "siltstone/tensor.h"

namespace siltstone {

// rank() maps words to their place in the order, word() back; both are bijections of all patterns,
// so -0, infinities and NaNs need no care. Branch-free: `W` is the unsigned type of the word.
template <class W>
class WordRanks {
 public:
  explicit WordRanks(WordOrder order)
      : top_(order == WordOrder::kUnsigned ? W{0} : kTop),
        by_sign_(order == WordOrder::kSignMagnitude ? W(~W{0}) : W{0}) {}

  W rank(W word) const { return static_cast<W>(word ^ mask(word)); }
  // Words whose rank has its top bit clear had the sign set, and only those were flipped whole.
  W word(W rank) const { return static_cast<W>(rank ^ mask(static_cast<W>(~rank))); }

  // rank(to) - rank(from) modulo 2^bits, as a signed number.
  std::make_signed_t<W> step(W from, W to) const {
    return static_cast<std::make_signed_t<W>>(static_cast<W>(rank(to) - rank(from)));
  }
  W add(W from, W step) const { return word(static_cast<W>(rank(from) + step)); }

  static constexpr W kTop = W(W{1} << (8 * sizeof(W) - 1));

 private:
  W mask(W word) const {
    const W sign = W(W{0} - W(word >> (8 * sizeof(W) - 1)));  // all ones if the top bit is set
    return static_cast<W>((sign & by_sign_) | top_);
  }

  W top_;
  W by_sign_;
};

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

// Of a step by more than four, a two's complement number of `W`'s size.
template <class W>
constexpr StepSymbol wide_step_symbol(W step) {
  const bool down = (step >> (8 * sizeof(W) - 1)) != 0;
  const W size = down ? static_cast<W>(W{0} - step) : step;
  const auto beyond = static_cast<uint64_t>(static_cast<W>(size - 1));
  const auto q = static_cast<unsigned>(std::bit_width(beyond)) - 1;
  const uint64_t low = beyond - (uint64_t{1} << q);
  return {static_cast<uint8_t>(kFirstWideSymbol - 2 + q), static_cast<uint8_t>(q + 1),
          low | uint64_t{down} << q};
}

// Of any step.
template <class W>
constexpr StepSymbol step_symbol(W step) {
  if (step == 0) return {0, 0, 0};
  const bool down = (step >> (8 * sizeof(W) - 1)) != 0;
  const W size = down ? static_cast<W>(W{0} - step) : step;
  if (size > kExactSteps) return wide_step_symbol(step);
  return {static_cast<uint8_t>(2 * size - (down ? 0 : 1)), 0, 0};
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

// What a word's last step says of its next one: how far it is expected to go on, and which table
// the rest has. Nothing is known: no step is expected, and there is one table.
inline constexpr unsigned kMomentumContexts = 3;  // it stayed, moved by one, moved further
template <class W>
struct Momentum {
  constexpr Momentum() = default;
  constexpr explicit Momentum(W last_step) : down((last_step >> (8 * sizeof(W) - 1)) != 0) {
    const W size = down ? static_cast<W>(W{0} - last_step) : last_step;
    context = size < kMomentumContexts ? static_cast<unsigned>(size) : kMomentumContexts - 1;
    expected = size >= 2 ? static_cast<W>(size - size / 8) : W{0};
  }
  // What symbols are made of, and back; modulo 2^bits.
  constexpr W rest_of(W step) const {
    return static_cast<W>((down ? static_cast<W>(W{0} - step) : step) - expected);
  }
  constexpr W step_of(W rest) const {
    const auto size = static_cast<W>(rest + expected);
    return down ? static_cast<W>(W{0} - size) : size;
  }

  unsigned context = 0;
  bool down = false;
  W expected = 0;
};

// How the words of a section get their symbols and their tables.
struct StepCoding {
  WordOrder order = WordOrder::kUnsigned;
  uint64_t magnitude_mask = 0;  // where the exponent is: (word & magnitude_mask) >> shift
  unsigned shift = 0;
  unsigned threshold = 0;  // exponents below are dense
  unsigned tables = 1;     // by exponent
  // By the exponent of a dense word.
  unsigned table_of(uint64_t word) const {
    const auto exponent = static_cast<unsigned>((word & magnitude_mask) >> shift);
    const unsigned below = threshold - 1 - exponent;
    return below < tables ? below : tables - 1;
  }
};

// Raw bits to read, or where reading them has come to.
struct RawBits {
  const std::byte* bytes;  // kRawTailBytes more may be read than `end` says
  uint64_t at;             // bit
  uint64_t end;            // bit
};
inline constexpr size_t kRawTailBytes = 8;

}  // namespace siltstone
