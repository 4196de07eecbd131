// The kernels of the class codec: every set finds what plain loops find.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "delta/codecs/step_tables.h"
#include "delta/kernels/kernels.h"
#include "unit/delta/guarded_bytes.h"

namespace siltstone {
namespace {

uint64_t word_at(const std::byte* words, size_t word_bytes, size_t i) {
  uint64_t word = 0;
  std::memcpy(&word, words + i * word_bytes, word_bytes);
  return word;
}

ClassCuts random_cuts(size_t word_bytes, unsigned cuts, std::mt19937_64* random) {
  const uint64_t all = ~uint64_t{0} >> (64 - 8 * word_bytes);
  ClassCuts out;
  out.magnitude_mask = (*random)() % 4 == 0 ? 0 : all >> 1;
  out.cuts = cuts;
  uint64_t values[kMaxCuts];
  for (unsigned c = 0; c < cuts; ++c) {
    switch ((*random)() % 4) {
      case 0:
        values[c] = 0;
        break;
      case 1:
        values[c] = (all >> 1) + 1;
        break;  // above every magnitude
      default:
        values[c] = (*random)() & (all >> 1);
    }
  }
  std::sort(values, values + cuts);
  std::copy_n(values, cuts, out.from);
  return out;
}

void expect_classes(const ClassWindow& window, const std::byte* words, size_t word_bytes, size_t n,
                    const ClassCuts& cuts) {
  std::vector<std::vector<size_t>> members(cuts.cuts + 1);
  for (size_t i = 0; i < n; ++i) {
    unsigned c = 0;
    while (c < cuts.cuts && cuts.from[c] <= (word_at(words, word_bytes, i) & cuts.magnitude_mask)) {
      ++c;
    }
    members[c].push_back(i);
  }
  const size_t groups = (n + kGroupElements - 1) / kGroupElements;
  for (unsigned c = 0; c <= cuts.cuts; ++c) {
    size_t seen = 0;
    for (size_t g = 0; g < groups; ++g) {
      ASSERT_EQ(window.before[c][g], seen) << "class " << c << ", group " << g;
      uint64_t expected = 0;
      for (; seen < members[c].size() && members[c][seen] < (g + 1) * kGroupElements; ++seen) {
        expected |= uint64_t{1} << members[c][seen] % kGroupElements;
      }
      ASSERT_EQ(window.members[c][g], expected) << "class " << c << ", group " << g;
    }
    ASSERT_EQ(window.before[c][groups], members[c].size()) << "class " << c;
  }
  for (size_t j = 0; j < members[0].size(); ++j) ASSERT_EQ(window.lowest[j], members[0][j]);
}

// Ranks of a random part of a class's members; where they stand is in its bits.
void expect_located(const Kernels& set, const ClassWindow& window, unsigned c, size_t groups,
                    std::mt19937_64* random) {
  const uint64_t first_rank = (*random)() % 1'000'000;
  const uint64_t one_in = 1 + (*random)() % 20;
  std::vector<uint32_t> ranks;
  std::vector<uint16_t> expected;
  uint64_t rank = first_rank;
  for (size_t g = 0; g < groups; ++g) {
    for (uint64_t left = window.members[c][g]; left != 0; left &= left - 1, ++rank) {
      if ((*random)() % one_in != 0) continue;
      ranks.push_back(static_cast<uint32_t>(rank));
      expected.push_back(static_cast<uint16_t>(g * kGroupElements + std::countr_zero(left)));
    }
  }
  std::vector<uint16_t> positions(ranks.size());
  set.locate(window.members[c], window.before[c], ranks.data(), ranks.size(), first_rank,
             positions.data());
  EXPECT_EQ(positions, expected) << "class " << c;
}

TEST(ClassKernels, SortAndLocate) {
  std::mt19937_64 random(1);
  const auto window = std::make_unique<ClassWindow>();
  for (const size_t word_bytes : {1U, 2U, 4U, 8U}) {
    for (const size_t n : {1U, 2U, 31U, 63U, 64U, 65U, 200U, 4096U, 8191U, 8192U}) {
      for (unsigned cuts = 1; cuts <= kMaxCuts; ++cuts) {
        GuardedBytes words(n * word_bytes);
        for (size_t i = 0; i < words.size(); ++i) words.data()[i] = std::byte(random());
        const ClassCuts where = random_cuts(word_bytes, cuts, &random);
        for (const Kernels* set : runnable_kernels()) {
          SCOPED_TRACE(std::string(set->name) + ", " + std::to_string(word_bytes) +
                       "-byte words, n " + std::to_string(n) + ", cuts " + std::to_string(cuts));
          set->classify[std::countr_zero(word_bytes)](words.data(), n, where, window.get());
          expect_classes(*window, words.data(), word_bytes, n, where);
          if (testing::Test::HasFatalFailure()) return;
          for (unsigned c = 0; c <= cuts; ++c) {
            expect_located(*set, *window, c, (n + kGroupElements - 1) / kGroupElements, &random);
          }
        }
      }
    }
  }
}

// Any bytes are words of some symbols, so random ones reach every state.
TEST(ClassKernels, DecodeSymbolsAlike) {
  std::mt19937_64 random(2);
  constexpr size_t kTables = 16;
  std::vector<SlotTable> slots(kTables);
  for (size_t t = 0; t < kTables; ++t) {
    fill_slots(standard_table(static_cast<unsigned>(random() % kStandardTables)).of, &slots[t]);
  }
  const Kernels& scalar = *runnable_kernels().front();
  for (unsigned log2_lanes = 2; log2_lanes <= 5; ++log2_lanes) {
    for (const size_t n : {1U, 3U, 4U, 15U, 16U, 17U, 31U, 32U, 33U, 63U, 100U, 8191U, 8192U}) {
      for (const size_t given : {n, n / 2, n / 8, size_t{3}, size_t{0}}) {
        const size_t words_left = std::min(given, n);
        GuardedBytes words(2 * words_left);
        for (size_t i = 0; i < words.size(); ++i) words.data()[i] = std::byte(random());
        std::vector<uint8_t> tables(n);
        for (uint8_t& table : tables) table = static_cast<uint8_t>(random() % kTables);
        std::vector<uint32_t> states(size_t{1} << log2_lanes);
        for (uint32_t& state : states) state = static_cast<uint32_t>(random()) | 1U << 16;
        const RansInput input{slots.front().data(), tables.data(), n,
                              log2_lanes,           words.data(),  words_left};
        std::vector<uint32_t> expected_states = states;
        std::vector<uint8_t> expected(n);
        const size_t used = scalar.decode_symbols(input, expected_states.data(), expected.data());
        for (const Kernels* set : runnable_kernels()) {
          SCOPED_TRACE(std::string(set->name) + ", n " + std::to_string(n) + ", lanes 2^" +
                       std::to_string(log2_lanes) + ", words " + std::to_string(words_left));
          std::vector<uint32_t> found_states = states;
          std::vector<uint8_t> found(n);
          ASSERT_EQ(set->decode_symbols(input, found_states.data(), found.data()), used);
          if (used == kCutOff) continue;
          ASSERT_EQ(found, expected);
          ASSERT_EQ(found_states, expected_states);
        }
      }
    }
  }
}

}  // namespace
}  // namespace siltstone
