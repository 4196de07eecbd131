// What the dense codecs code instead of words, and its byte planes (docs/format/delta_pack.md,
// "dense" and "dense_delta"). Plain loops that compilers turn into vector code.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {

// The new word; of a floating-point number with the sign at the bottom, so that exponents of 8 bits
// are a byte.
template <class W>
class NewWords {
 public:
  explicit NewWords(WordOrder order) : rotated_(order == WordOrder::kSignMagnitude ? 1 : 0) {}
  W code(W /*from*/, W to) const {
    return static_cast<W>(to << rotated_ | (to >> (kBits - 1) & rotated_));
  }
  W word(W /*from*/, W code) const {
    const W top = static_cast<W>(W(code & rotated_) << (kBits - 1));
    return static_cast<W>(W(code >> rotated_) | top);
  }

 private:
  static constexpr unsigned kBits = 8 * sizeof(W);
  W rotated_;
};

// The step, small ones of both signs as small numbers: 0, -1, 1, -2, ...
template <class W>
class WordSteps {
 public:
  explicit WordSteps(WordOrder order) : ranks_(order) {}
  W code(W from, W to) const {
    const W step = static_cast<W>(ranks_.step(from, to));
    const W sign = static_cast<W>(W{0} - W(step >> (8 * sizeof(W) - 1)));
    return static_cast<W>(W(step << 1) ^ sign);
  }
  W word(W from, W code) const {
    const W sign = static_cast<W>(W{0} - W(code & 1));
    return ranks_.add(from, static_cast<W>(W(code >> 1) ^ sign));
  }

 private:
  WordRanks<W> ranks_;
};

// Plane p, `n` bytes from planes + p * n, gets byte p of all codes.
template <class W, class Coding>
void split_planes(const Coding coding, const std::byte* old_words, const std::byte* new_words,
                  uint64_t n, std::byte* __restrict planes) {
  for (uint64_t i = 0; i < n; ++i) {
    const W code =
        coding.code(load_le<W>(old_words + i * sizeof(W)), load_le<W>(new_words + i * sizeof(W)));
    for (unsigned p = 0; p < sizeof(W); ++p)
      planes[p * n + i] = static_cast<std::byte>(code >> (8 * p));
  }
}

// The inverse, in place of the old words; planes may lie anywhere.
template <class W, class Coding>
void join_planes(const Coding coding, const std::array<const std::byte*, sizeof(W)> planes,
                 uint64_t n, std::byte* words) {
  for (uint64_t i = 0; i < n; ++i) {
    W code = 0;
    for (unsigned p = 0; p < sizeof(W); ++p)
      code = static_cast<W>(code | W(W(static_cast<uint8_t>(planes[p][i])) << (8 * p)));
    std::byte* const word = words + i * sizeof(W);
    store_le(word, coding.word(load_le<W>(word), code));
  }
}

}  // namespace siltstone
