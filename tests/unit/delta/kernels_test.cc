#include "delta/kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "unit/delta/guarded_bytes.h"

namespace siltstone {
namespace {

struct Case {
  size_t word_bytes;
  size_t n;
  size_t pad_bytes;  // bytes between the end of the input and the end of memory: shifts alignment
  double density;
};

std::string describe(const Kernels& set, const Case& c) {
  return std::string(set.name) + ", " + std::to_string(c.word_bytes) + "-byte words, n " +
         std::to_string(c.n) + ", padding " + std::to_string(c.pad_bytes) + ", density " +
         std::to_string(c.density);
}

// Two versions of a run, and what a diff of them has to say, found one word at a time.
struct Versions {
  Versions(const Case& c, std::mt19937_64* random)
      : next(c.n * c.word_bytes + c.pad_bytes), base(c.n * c.word_bytes + c.pad_bytes) {
    for (size_t i = 0; i < base.size(); ++i) base.data()[i] = static_cast<std::byte>((*random)());
    std::memcpy(next.data(), base.data(), base.size());
    std::bernoulli_distribution changes(c.density);
    for (size_t i = 0; i < c.n; ++i) {
      if (!changes(*random)) continue;
      // One bit is the least a word can differ in, and it must not matter which.
      const size_t bit = (*random)() % (c.word_bytes * 8);
      next.data()[i * c.word_bytes + bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      positions.push_back(static_cast<uint16_t>(i));
      const std::byte* word = next.data() + i * c.word_bytes;
      words.insert(words.end(), word, word + c.word_bytes);
    }
  }

  GuardedBytes next;
  GuardedBytes base;
  std::vector<uint16_t> positions;
  std::vector<std::byte> words;
};

void expect_agrees(const Kernels& set, const Case& c, Versions* run) {
  SCOPED_TRACE(describe(set, c));
  const auto log2 = static_cast<size_t>(std::countr_zero(c.word_bytes));
  GuardedBytes positions((c.n + kDiffSlack) * sizeof(uint16_t));
  GuardedBytes words((c.n + kDiffSlack) * c.word_bytes);
  auto* position_out = reinterpret_cast<uint16_t*>(positions.data());

  const std::vector<std::byte> old(run->base.data(), run->base.data() + run->base.size());
  const std::vector<std::byte> now(run->next.data(), run->next.data() + run->next.size());
  const auto expect_list = [&](size_t count) {
    ASSERT_EQ(count, run->positions.size());
    EXPECT_TRUE(std::equal(run->positions.begin(), run->positions.end(), position_out));
    EXPECT_TRUE(std::equal(run->words.begin(), run->words.end(), words.data()));
    EXPECT_TRUE(std::equal(now.begin(), now.end(), run->next.data()));
  };

  expect_list(set.diff[log2](run->next.data(), run->base.data(), c.n, position_out, words.data()));
  EXPECT_TRUE(std::equal(old.begin(), old.end(), run->base.data())) << "diff wrote to the base";

  std::memset(positions.data(), 0xee, positions.size());
  std::memset(words.data(), 0xee, words.size());
  expect_list(
      set.diff_refresh[log2](run->next.data(), run->base.data(), c.n, position_out, words.data()));
  EXPECT_TRUE(std::equal(now.begin(), now.end(), run->base.data())) << "base is not refreshed";
  EXPECT_EQ(
      set.diff_refresh[log2](run->next.data(), run->base.data(), c.n, position_out, words.data()),
      0U);
  std::copy(old.begin(), old.end(), run->base.data());
}

constexpr double kDensities[] = {0, 0.002, 0.01, 0.05, 0.3, 0.9, 1};

TEST(DiffKernels, AgreeOnEveryLengthAroundTheVectorWidth) {
  std::mt19937_64 random(1);
  for (const size_t word_bytes : {1U, 2U, 4U, 8U}) {
    for (size_t n = 0; n <= 2 * 64 / word_bytes + 3; ++n) {
      for (const double density : {0.0, 0.1, 1.0}) {
        const Case c{word_bytes, n, 0, density};
        Versions run(c, &random);
        for (const Kernels* set : runnable_kernels()) expect_agrees(*set, c, &run);
      }
    }
  }
}

TEST(DiffKernels, AgreeOnEveryDensityAndAlignment) {
  std::mt19937_64 random(2);
  for (const size_t word_bytes : {1U, 2U, 4U, 8U}) {
    for (const double density : kDensities) {
      for (const size_t pad_bytes : {0U, 1U, 2U, 3U, 8U, 31U, 32U, 63U}) {
        const Case c{word_bytes, 3000 + pad_bytes, pad_bytes, density};
        Versions run(c, &random);
        for (const Kernels* set : runnable_kernels()) expect_agrees(*set, c, &run);
      }
    }
  }
}

TEST(DiffKernels, AgreeOnTheLongestRun) {
  std::mt19937_64 random(3);
  for (const size_t word_bytes : {1U, 2U, 4U, 8U}) {
    for (const double density : kDensities) {
      for (const size_t n : {65535U, 65536U}) {
        const Case c{word_bytes, n, 5, density};
        Versions run(c, &random);
        for (const Kernels* set : runnable_kernels()) expect_agrees(*set, c, &run);
      }
    }
  }
}

// Everywhere a single change can stand in a few vectors and a tail, alone.
TEST(DiffKernels, FindASingleChangeAnywhere) {
  for (const size_t word_bytes : {1U, 2U, 4U, 8U}) {
    const auto log2 = static_cast<size_t>(std::countr_zero(word_bytes));
    const size_t n = 3 * 64 / word_bytes + 5;
    std::vector<std::byte> base(n * word_bytes, std::byte{0x5a});
    std::vector<std::byte> next = base;
    std::vector<uint16_t> positions(n + kDiffSlack);
    std::vector<std::byte> words((n + kDiffSlack) * word_bytes);
    for (const Kernels* set : runnable_kernels()) {
      SCOPED_TRACE(set->name);
      for (size_t byte = 0; byte < next.size(); ++byte) {
        next[byte] = std::byte{0x5b};
        ASSERT_EQ(set->diff[log2](next.data(), base.data(), n, positions.data(), words.data()), 1U);
        ASSERT_EQ(positions[0], byte / word_bytes);
        ASSERT_EQ(words[byte % word_bytes], std::byte{0x5b});
        next[byte] = base[byte];
      }
    }
  }
}

TEST(DigestKernels, AgreeAtEveryLengthAndStart) {
  std::mt19937_64 random(4);
  const Kernels& scalar = *runnable_kernels().front();
  ASSERT_EQ(scalar.name, "scalar");
  for (const uint64_t first :
       {0ULL, 1ULL, 3ULL, 8ULL, 1000ULL, 1023ULL, 1024ULL, 1ULL << 40, (1ULL << 60) + 1021}) {
    for (const size_t n : {0U,  1U,  2U,  3U,  4U,  5U,    7U,    8U,    9U,    15U,   16U,  17U,
                           31U, 33U, 63U, 64U, 65U, 1023U, 1024U, 1025U, 2047U, 2050U, 5000U}) {
      for (const size_t pad_bytes : {0U, 1U, 9U}) {
        GuardedBytes bytes(n * 8 + pad_bytes);
        for (size_t i = 0; i < bytes.size(); ++i) {
          bytes.data()[i] = static_cast<std::byte>(random());
        }
        const Sum128 expected = scalar.digest(bytes.data(), n, first);
        for (const Kernels* set : runnable_kernels()) {
          EXPECT_EQ(set->digest(bytes.data(), n, first), expected)
              << set->name << ", " << n << " words from " << first << ", padding " << pad_bytes;
        }
      }
    }
  }
}

TEST(DigestKernels, AgreeOnExtremeWords) {
  for (const std::byte fill : {std::byte{0}, std::byte{0xff}, std::byte{0x80}, std::byte{0x7f}}) {
    const std::vector<std::byte> bytes(3000 * 8, fill);
    const Sum128 expected = runnable_kernels().front()->digest(bytes.data(), 3000, 77);
    for (const Kernels* set : runnable_kernels()) {
      EXPECT_EQ(set->digest(bytes.data(), 3000, 77), expected) << set->name;
    }
  }
}

class Dispatch : public testing::Test {
 protected:
  // Each case runs in a process of its own: kernels() chooses once per process.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  [[noreturn]] static void choose(const std::string& forced, std::string_view expected) {
    setenv("SILTSTONE_KERNELS", forced.c_str(), 1);
    std::_Exit(kernels().name == expected ? 0 : 1);
  }
};

TEST_F(Dispatch, TakesTheForcedSet) {
  for (const Kernels* set : runnable_kernels()) {
    const std::string name(set->name);
    EXPECT_EXIT(choose(name, name), testing::ExitedWithCode(0), "");
  }
}

TEST_F(Dispatch, TakesTheBestSetWhenNothingIsForced) {
  EXPECT_EXIT(choose("", runnable_kernels().back()->name), testing::ExitedWithCode(0), "");
}

TEST_F(Dispatch, RefusesWhatItCannotRun) {
  EXPECT_EXIT(choose("avx1024", ""), testing::ExitedWithCode(2),
              "SILTSTONE_KERNELS=avx1024: no kernels of this name run on this CPU; choose one of "
              "scalar");
  EXPECT_EXIT(choose("Scalar", ""), testing::ExitedWithCode(2), "choose one of scalar");
  for (const std::string name : {"avx2", "avx512"}) {
    bool runs = false;
    for (const Kernels* set : runnable_kernels()) runs |= set->name == name;
    if (runs) continue;
    EXPECT_EXIT(choose(name, ""), testing::ExitedWithCode(2), name);
  }
}

}  // namespace
}  // namespace siltstone
