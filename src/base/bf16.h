// The one cast of the library: fp32 words to bf16 words, by integer arithmetic.
#pragma once

#include <cstdint>

namespace siltstone {

// Rounds to nearest, ties to even, as trainers do when they cast master weights: subnormals stay
// what they are, values from the middle between the largest finite bf16 and infinity up become
// infinity. A NaN keeps its sign and the top bits of its payload and becomes quiet, whatever its
// low bits: rounded like a number, it could turn into infinity or zero.
//
// CPUs' own conversions take subnormals for zero, so no kernel may use them. Always inlined: files
// with different instruction set flags share it (delta/kernels/sets.h).
[[gnu::always_inline]] constexpr uint16_t bf16_of_f32(uint32_t word) {
  const bool nan = (word & 0x7fffffff) > 0x7f800000;
  const uint32_t quiet = (word >> 16) | 0x40;
  const uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
  return static_cast<uint16_t>(nan ? quiet : rounded);
}

}  // namespace siltstone
