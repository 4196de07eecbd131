// Keys and factors of the tensor digest (docs/format/digest.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace siltstone {

inline constexpr uint64_t kDigestBlockWords = 1024;
inline constexpr size_t kDigestLaneShift = 32;  // lane b uses the key this far after lane a's
inline constexpr uint64_t kDigestSeed = 0x53494c5453544f4e;  // "SILTSTON", read big-endian
inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15;

// The output of the generator splitmix64 whose state is `state` before the step. Always inlined:
// files with different instruction set flags share it (sets.h).
[[gnu::always_inline]] constexpr uint64_t splitmix64(uint64_t state) {
  uint64_t z = state + kSplitMixStep;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

[[gnu::always_inline]] constexpr uint64_t digest_factor_a(uint64_t block) {
  return splitmix64(block) | 1;
}
[[gnu::always_inline]] constexpr uint64_t digest_factor_b(uint64_t block) {
  return splitmix64(~block) | 1;
}

// One word under one key: a 64-bit product of two 32-bit sums.
[[gnu::always_inline]] constexpr uint64_t digest_term(uint64_t word, uint64_t key) {
  const auto low = static_cast<uint32_t>(word + key);
  const auto high = static_cast<uint32_t>((word >> 32) + (key >> 32));
  return static_cast<uint64_t>(low) * high;
}

struct alignas(64) DigestKeys {
  uint64_t key[kDigestBlockWords + kDigestLaneShift];
};
extern const DigestKeys kDigestKeys;

}  // namespace siltstone
