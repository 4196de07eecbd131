// Old words for codecs that look at them, out of a seed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "delta/codecs/class_layout.h"
#include "siltstone/tensor.h"

namespace siltstone {

inline uint64_t next_random(uint64_t* state) {  // G. Marsaglia, Xorshift RNGs, 2003
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

// Seed 0: zeros. Else the seed's low bits choose: random bits, or floating-point words whose
// exponents are spread as those of weights are, each binade down half as many.
inline std::vector<std::byte> make_old_words(DType dtype, uint64_t elements, uint64_t seed) {
  const unsigned word_bytes = dtype_info(dtype).word_bytes;
  std::vector<std::byte> words(elements * word_bytes);
  if (seed == 0) return words;
  const ExponentField field = exponent_field(dtype);
  const uint64_t top = seed / 8 % field.exponents;
  uint64_t state = seed;
  for (uint64_t i = 0; i < elements; ++i) {
    uint64_t word = next_random(&state);
    if (field.exponents > 1 && seed % 8 != 0) {
      const auto below = static_cast<uint64_t>(std::countr_zero(word | uint64_t{1} << 40));
      const uint64_t exponent = top < below ? 0 : top - below;
      word = (word & ~field.magnitude_mask) | exponent << field.shift |
             (word >> 8 & ((uint64_t{1} << field.shift) - 1));
    }
    for (unsigned b = 0; b < word_bytes; ++b)
      words[i * word_bytes + b] = static_cast<std::byte>(word >> (8 * b));
  }
  return words;
}

}  // namespace siltstone
