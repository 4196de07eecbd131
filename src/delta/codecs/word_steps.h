// Steps between words in the monotone order of their dtype (docs/format/delta_pack.md, "Steps").
#pragma once

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

}  // namespace siltstone
