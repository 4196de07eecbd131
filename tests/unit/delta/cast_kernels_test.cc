// The cast of fp32 words to bf16 and the kernels it is fused into.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "delta/kernels/kernels.h"
#include "unit/delta/guarded_bytes.h"

namespace siltstone {
namespace {

// Rounding said in another way, with exact arithmetic on the values, so that the formula under test
// is not its own judge. REQUIRES: not a NaN.
uint16_t rounded_by_value(uint32_t word) {
  const uint32_t sign = word & 0x80000000;
  const uint32_t magnitude = word & 0x7fffffff;
  if (magnitude == 0x7f800000) return static_cast<uint16_t>(word >> 16);
  const auto value = [](uint32_t bits) {
    // Infinity stands where the next finite value would: that is how rounding sees it.
    if (bits == 0x7f800000) return std::ldexp(1.0, 128);
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return static_cast<double>(f);
  };
  const uint32_t below = magnitude & 0xffff0000;
  const uint32_t above = below + 0x10000;
  const double to_below = value(magnitude) - value(below);
  const double to_above = value(above) - value(magnitude);
  const bool below_is_even = (below >> 16) % 2 == 0;
  const bool down = to_below < to_above || (to_below == to_above && below_is_even);
  return static_cast<uint16_t>((sign | (down ? below : above)) >> 16);
}

constexpr uint32_t kLowerHalves[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

TEST(Bf16, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    for (const uint32_t lower : kLowerHalves) {
      const uint32_t word = upper << 16 | lower;
      if ((word & 0x7fffffff) > 0x7f800000) continue;
      ASSERT_EQ(bf16_of_f32(word), rounded_by_value(word)) << std::hex << word;
    }
  }
}

TEST(Bf16, KeepsSpecialValues) {
  EXPECT_EQ(bf16_of_f32(0x00000000), 0x0000);
  EXPECT_EQ(bf16_of_f32(0x80000000), 0x8000);
  EXPECT_EQ(bf16_of_f32(0x00010000), 0x0001) << "the least subnormal";
  EXPECT_EQ(bf16_of_f32(0x80008001), 0x8001) << "a subnormal rounded away from zero";
  EXPECT_EQ(bf16_of_f32(0x007fffff), 0x0080) << "the largest subnormal becomes normal";
  EXPECT_EQ(bf16_of_f32(0x7f7f7fff), 0x7f7f) << "the largest that stays finite";
  EXPECT_EQ(bf16_of_f32(0x7f7f8000), 0x7f80) << "the least that overflows";
  EXPECT_EQ(bf16_of_f32(0xff7fffff), 0xff80);
  EXPECT_EQ(bf16_of_f32(0x7f800000), 0x7f80);
  EXPECT_EQ(bf16_of_f32(0x7f800001), 0x7fc0) << "a NaN whose payload is below";
  EXPECT_EQ(bf16_of_f32(0x7fffffff), 0x7fff) << "a NaN that rounding would carry to -0";
  EXPECT_EQ(bf16_of_f32(0xffa5ffff), 0xffe5);
}

TEST(Bf16, NaNsStayNaNsOfTheirSignAndPayload) {
  for (const uint32_t sign : {0U, 0x8000U}) {
    for (uint32_t upper = 0x7f80; upper < 0x8000; ++upper) {
      for (const uint32_t lower : kLowerHalves) {
        if (upper == 0x7f80 && lower == 0) continue;
        EXPECT_EQ(bf16_of_f32((sign | upper) << 16 | lower), (sign | upper | 0x40));
      }
    }
  }
}

std::vector<uint32_t> every_pattern() {
  std::vector<uint32_t> words;
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    for (const uint32_t lower : kLowerHalves) words.push_back(upper << 16 | lower);
  }
  return words;
}

std::byte* put(const std::vector<uint32_t>& words, GuardedBytes* out) {
  if (!words.empty()) std::memcpy(out->data(), words.data(), words.size() * 4);
  return out->data();
}

// Two versions of a run: fp32 words, and bf16 words that differ from them, rounded, at `positions`.
struct CastVersions {
  CastVersions(const std::vector<uint32_t>& f32, double density, uint64_t seed, size_t pad_bytes)
      : next(f32.size() * 4 + pad_bytes), base(f32.size() * 2 + pad_bytes) {
    std::mt19937_64 random(seed);
    std::bernoulli_distribution changes(density);
    put(f32, &next);
    for (size_t i = 0; i < f32.size(); ++i) {
      const uint16_t word = bf16_of_f32(f32[i]);
      now.push_back(word);
      uint16_t old = word;
      if (changes(random)) {
        old = static_cast<uint16_t>(old ^ 1U << random() % 16);
        positions.push_back(static_cast<uint16_t>(i));
        words.push_back(word);
      }
      was.push_back(old);
    }
    restore();
  }
  void restore() {
    if (!was.empty()) std::memcpy(base.data(), was.data(), was.size() * 2);
  }
  bool base_is(const std::vector<uint16_t>& expected) {
    return expected.empty() || std::memcmp(base.data(), expected.data(), expected.size() * 2) == 0;
  }

  GuardedBytes next;
  GuardedBytes base;
  std::vector<uint16_t> now;
  std::vector<uint16_t> was;
  std::vector<uint16_t> positions;
  std::vector<uint16_t> words;
};

void expect_agrees(const Kernels& set, CastVersions* run) {
  SCOPED_TRACE(std::string(set.name) + ", n " + std::to_string(run->now.size()));
  const size_t n = run->now.size();
  GuardedBytes positions((n + kDiffSlack) * sizeof(uint16_t));
  GuardedBytes words((n + kDiffSlack) * sizeof(uint16_t));
  auto* position_out = reinterpret_cast<uint16_t*>(positions.data());
  auto* word_out = reinterpret_cast<uint16_t*>(words.data());
  const auto expect_list = [&](size_t count) {
    ASSERT_EQ(count, run->positions.size());
    EXPECT_TRUE(std::equal(run->positions.begin(), run->positions.end(), position_out));
    EXPECT_TRUE(std::equal(run->words.begin(), run->words.end(), word_out));
  };
  expect_list(set.diff_cast(run->next.data(), run->base.data(), n, position_out, words.data()));
  EXPECT_TRUE(run->base_is(run->was)) << "diff_cast wrote to the base";
  GuardedBytes rounded(n * 2);
  std::memset(positions.data(), 0xee, positions.size());
  std::memset(words.data(), 0xee, words.size());
  expect_list(set.diff_cast_keep(run->next.data(), run->base.data(), n, position_out, words.data(),
                                 rounded.data()));
  EXPECT_TRUE(run->base_is(run->was)) << "diff_cast_keep wrote to the base";
  EXPECT_TRUE(n == 0 || std::memcmp(rounded.data(), run->now.data(), n * 2) == 0);
  std::memset(positions.data(), 0xee, positions.size());
  std::memset(words.data(), 0xee, words.size());
  expect_list(
      set.diff_cast_refresh(run->next.data(), run->base.data(), n, position_out, words.data()));
  EXPECT_TRUE(run->base_is(run->now)) << "base is not refreshed";
  EXPECT_EQ(
      set.diff_cast_refresh(run->next.data(), run->base.data(), n, position_out, words.data()), 0U);
  run->restore();

  if (n > 0) std::memset(rounded.data(), 0xee, rounded.size());
  set.cast(run->next.data(), n, rounded.data());
  EXPECT_TRUE(n == 0 || std::memcmp(rounded.data(), run->now.data(), n * 2) == 0);
}

std::vector<uint32_t> random_words(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint32_t> words(n);
  for (uint32_t& word : words) {
    word = static_cast<uint32_t>(random());
    // Many have an exponent of all ones or all zeros: NaNs, infinities, subnormals.
    if (random() % 16 == 0) word |= 0x7f800000;
    if (random() % 16 == 0) word &= 0x807fffff;
    if (random() % 16 == 0) word &= 0xffff0000;
  }
  return words;
}

TEST(CastKernels, AgreeOnEveryPattern) {
  const std::vector<uint32_t> all = every_pattern();
  for (size_t begin = 0; begin < all.size(); begin += 65536) {
    const size_t end = std::min<size_t>(begin + 65536, all.size());
    const std::vector<uint32_t> f32(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                    all.begin() + static_cast<std::ptrdiff_t>(end));
    for (const double density : {0.0, 0.02, 1.0}) {
      CastVersions run(f32, density, begin, 0);
      for (const Kernels* set : runnable_kernels()) expect_agrees(*set, &run);
    }
  }
}

// Each special word at each place of a register and of the tail.
TEST(CastKernels, TreatEveryLaneAlike) {
  for (const uint32_t word : {0x7f800001U, 0xffffffffU, 0x7f7f8000U, 0x00008001U, 0x80000001U,
                              0x3f808000U, 0x3f818000U, 0x80000000U}) {
    for (size_t at = 0; at < 70; ++at) {
      std::vector<uint32_t> f32(70, 0x3f800000);
      f32[at] = word;
      CastVersions run(f32, 0.1, at, 0);
      for (const Kernels* set : runnable_kernels()) expect_agrees(*set, &run);
    }
  }
}

TEST(CastKernels, AgreeOnEveryLengthUpToTwoHundred) {
  for (size_t n = 0; n <= 200; ++n) {
    for (const double density : {0.0, 0.1, 1.0}) {
      CastVersions run(random_words(n, n), density, n, 0);
      for (const Kernels* set : runnable_kernels()) expect_agrees(*set, &run);
    }
  }
}

TEST(CastKernels, AgreeOnEveryDensityAndAlignment) {
  for (const double density : {0.0, 0.002, 0.01, 0.05, 0.3, 0.9, 1.0}) {
    for (const size_t pad_bytes : {0U, 1U, 2U, 3U, 8U, 31U, 32U, 63U}) {
      CastVersions run(random_words(5000 + pad_bytes, pad_bytes), density, 7, pad_bytes);
      for (const Kernels* set : runnable_kernels()) expect_agrees(*set, &run);
    }
  }
}

TEST(CastKernels, AgreeOnTheLongestRun) {
  for (const double density : {0.0, 0.01, 0.1, 1.0}) {
    for (const size_t n : {65535U, 65536U}) {
      CastVersions run(random_words(n, 9), density, 9, 5);
      for (const Kernels* set : runnable_kernels()) expect_agrees(*set, &run);
    }
  }
}

TEST(CastKernels, CastMoreThanOneRun) {
  const size_t n = 200003;
  const std::vector<uint32_t> f32 = random_words(n, 11);
  GuardedBytes next(n * 4);
  GuardedBytes cast(n * 2);
  put(f32, &next);
  for (const Kernels* set : runnable_kernels()) {
    std::memset(cast.data(), 0, cast.size());
    set->cast(next.data(), n, cast.data());
    for (size_t i = 0; i < n; ++i) {
      ASSERT_EQ(load_le<uint16_t>(cast.data() + i * 2), bf16_of_f32(f32[i])) << set->name;
    }
  }
}

}  // namespace
}  // namespace siltstone
