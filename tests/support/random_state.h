// Deterministic pairs of states: old words, and new words that differ at chosen places.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "siltstone/tensor.h"
#include "support/plain_change.h"

namespace siltstone::test {

// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t limit) { return next() % limit; }

 private:
  uint64_t state_;
};

// Which elements change.
struct Where {
  enum Kind { kFirst, kLast, kRate, kStretch } kind = kRate;
  uint32_t per_million = 10'000;  // kRate
};

// What the changed words become.
enum class Pattern {
  kNeighbours,  // the bit pattern next above or below
  kRandom,      // unrelated words
  kSpecials,    // between zeros, infinities, NaNs of many payloads, extremes
  kExtremes,    // from the lowest word of the order to the highest and back
};
inline constexpr Pattern kPatterns[] = {Pattern::kNeighbours, Pattern::kRandom, Pattern::kSpecials,
                                        Pattern::kExtremes};

// The word as bytes, cut to `word_bytes`.
inline void put_word(uint64_t word, size_t word_bytes, std::byte* out) {
  std::memcpy(out, &word, word_bytes);
}

inline uint64_t special_word(size_t word_bytes, Random* random) {
  const unsigned bits = static_cast<unsigned>(8 * word_bytes);
  const uint64_t top = uint64_t{1} << (bits - 1);
  const uint64_t all = ~uint64_t{0} >> (64 - bits);
  const uint64_t infinity = bits == 16   ? (random->below(2) ? 0x7F80 : 0x7C00)
                            : bits == 32 ? 0x7F800000
                            : bits == 64 ? 0x7FF0000000000000
                                         : 0x7C;
  const uint64_t words[] = {
      0,      top,     infinity,     infinity | top, all,     all ^ top,
      1,      top | 1, infinity + 1, infinity - 1,   top - 1, infinity | top | 1,
      all - 1};
  return words[random->below(std::size(words))] & all;
}

// Changes old word to one that differs.
inline uint64_t changed_word(uint64_t old_word, Pattern pattern, size_t word_bytes,
                             Random* random) {
  const uint64_t all = ~uint64_t{0} >> (64 - 8 * word_bytes);
  uint64_t word = old_word;
  while (word == old_word) {
    switch (pattern) {
      case Pattern::kNeighbours:
        word = (random->below(2) ? old_word + 1 : old_word - 1) & all;
        break;
      case Pattern::kRandom:
        word = random->next() & all;
        break;
      default:
        word = special_word(word_bytes, random);
    }
  }
  return word;
}

inline bool is_chosen(const Where& where, uint64_t at, uint64_t elements, Random* random) {
  switch (where.kind) {
    case Where::kFirst:
      return at == 0;
    case Where::kLast:
      return at + 1 == elements;
    case Where::kStretch:
      return at >= elements / 3 && at < elements / 3 + elements / 10 + 1;
    default:
      return random->below(1'000'000) < where.per_million;
  }
}

inline PlainChange make_change(DType dtype, uint64_t elements, unsigned log2_block, Where where,
                               Pattern pattern, uint64_t seed) {
  Random random(seed);
  const size_t word_bytes = dtype_info(dtype).word_bytes;
  const uint64_t all = ~uint64_t{0} >> (64 - 8 * word_bytes);
  std::vector<std::byte> old_words(elements * word_bytes);
  std::vector<std::byte> new_words(elements * word_bytes);
  for (uint64_t i = 0; i < elements; ++i) {
    uint64_t word = random.next() & all;
    if (pattern == Pattern::kSpecials) word = special_word(word_bytes, &random);
    if (pattern == Pattern::kExtremes) word = random.below(2) ? all : 0;
    put_word(word, word_bytes, old_words.data() + i * word_bytes);
    if (is_chosen(where, i, elements, &random)) {
      word = pattern == Pattern::kExtremes ? word ^ (random.below(2) ? all : all >> 1)
                                           : changed_word(word, pattern, word_bytes, &random);
    }
    put_word(word, word_bytes, new_words.data() + i * word_bytes);
  }
  return PlainChange(dtype, log2_block, std::move(old_words), std::move(new_words));
}

}  // namespace siltstone::test
