// The kernels of the class codec: every set finds what plain loops find.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "delta/codecs/bits.h"
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
  // As exponents of bf16 are cut, which may be a case of its own.
  if ((*random)() % 2 == 0)
    for (unsigned c = 0; c < cuts; ++c) values[c] &= ~uint64_t{0x7F};
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

// A window of words, of which those below a cut are dense, and words that follow them by steps of
// all sizes.
template <class W>
class Steps {
 public:
  Steps(WordOrder order, size_t n, std::mt19937_64* random)
      : n_(n),
        words_(n * sizeof(W)),
        next_(n * sizeof(W)),
        earlier_(n * sizeof(W)),
        window_(std::make_unique<ClassWindow>()) {
    coding_.order = order;
    constexpr uint64_t kAll = ~uint64_t{0} >> (64 - 8 * sizeof(W));
    const bool exponents = order == WordOrder::kSignMagnitude;
    coding_.magnitude_mask = exponents ? kAll >> 1 : 0;
    const unsigned bits = exponents ? std::min<unsigned>(4 * sizeof(W), 11) : 0;
    coding_.shift = exponents ? static_cast<unsigned>(8 * sizeof(W)) - 1 - bits : 0;
    coding_.threshold = 1 + static_cast<unsigned>((*random)() % (uint64_t{1} << bits));
    coding_.tables = exponents ? 1 + static_cast<unsigned>((*random)() % 16) : 1;
    const WordRanks<W> ranks(order);
    for (size_t i = 0; i < n; ++i) {
      const auto word = static_cast<W>((*random)());
      const auto step = static_cast<W>(random_step(random));
      store_le(words_.data() + i * sizeof(W), word);
      store_le(next_.data() + i * sizeof(W), ranks.add(word, step));
      // On average every third word goes on as it came.
      const auto last = (*random)() % 3 == 0 ? step : static_cast<W>(random_step(random));
      store_le(earlier_.data() + i * sizeof(W), ranks.add(word, static_cast<W>(W{0} - last)));
    }
    ClassCuts cuts;
    cuts.magnitude_mask = coding_.magnitude_mask;
    cuts.cuts = 1;
    cuts.from[0] = uint64_t{coding_.threshold} << coding_.shift;
    runnable_kernels().front()->classify[kIndex](words_.data(), n, cuts, window_.get());
    const size_t groups = (n + kGroupElements - 1) / kGroupElements;
    for (size_t j = 0; j < window_->before[0][groups]; ++j) dense_.push_back(window_->lowest[j]);
  }

  // Every set takes the steps that the definitions of symbols and tables say, and makes them again;
  // or, with the words of the version before, what momentum leaves open of them.
  void expect_taken_and_made(const Kernels& set, bool with_earlier) {
    const size_t k = dense_.size();
    const std::byte* const earlier = with_earlier ? earlier_.data() : nullptr;
    std::vector<uint16_t> codes(k + kStepSlack);
    std::vector<W> wide(k + kStepSlack);
    std::vector<uint8_t> tables(k + kStepSlack);
    wide.resize(set.take_steps[kIndex](coding_, words_.data(), earlier, next_.data(), n_, *window_,
                                       codes.data(), reinterpret_cast<std::byte*>(wide.data())));
    set.find_tables[kIndex](coding_, words_.data(), earlier, n_, *window_, tables.data());
    const WordRanks<W> ranks(coding_.order);
    std::vector<uint8_t> symbols(k + kStepSlack);
    std::vector<std::byte> raw(k * 8 + 64);
    BitWriter bits(raw.data());
    uint64_t end = 0;
    size_t wides = 0;
    size_t changed = 0;
    for (size_t j = 0; j < k; ++j) {
      const W from = word(words_, dense_[j]);
      auto step = static_cast<W>(ranks.step(from, word(next_, dense_[j])));
      unsigned table = coding_.table_of(from);
      changed += step != 0 ? 1 : 0;
      if (with_earlier) {
        const auto last = static_cast<W>(ranks.step(word(earlier_, dense_[j]), from));
        const Momentum<W> momentum(last);
        ASSERT_EQ(momentum.step_of(momentum.rest_of(step)), step);
        step = momentum.rest_of(step);
        table = table * kMomentumContexts + momentum.context;
      }
      StepSymbol expected = step_symbol(step);
      ASSERT_EQ(codes[j], table * kRansTableSymbols + expected.symbol) << j;
      ASSERT_EQ(tables[j], table) << j;
      symbols[j] = expected.symbol;
      if (expected.symbol < kFirstWideSymbol) continue;
      ASSERT_LT(wides, wide.size());
      ASSERT_EQ(wide[wides++], step) << j;
      // Now and then as an escape, which carries the step whole.
      if (j % 5 == 0) expected = {kEscapeSymbol, 8 * sizeof(W), step};
      symbols[j] = expected.symbol;
      bits.put_long(expected.raw, expected.raw_bits);
      end += expected.raw_bits;
    }
    ASSERT_EQ(wides, wide.size());
    RawBits all{raw.data(), 0, end};
    GuardedBytes made(words_.size());
    std::copy_n(words_.data(), words_.size(), made.data());
    ASSERT_EQ(
        set.make_steps[kIndex](coding_, made.data(), earlier, n_, *window_, symbols.data(), &all),
        changed);
    EXPECT_EQ(all.at, end);
    for (const size_t at : dense_) ASSERT_EQ(word(made, at), word(next_, at)) << at;
    if (end == 0) return;
    RawBits cut{raw.data(), 0, end - 1};
    std::copy_n(words_.data(), words_.size(), made.data());
    EXPECT_EQ(
        set.make_steps[kIndex](coding_, made.data(), earlier, n_, *window_, symbols.data(), &cut),
        kCutOff);
  }

 private:
  static constexpr size_t kIndex = std::countr_zero(sizeof(W));

  static W word(GuardedBytes& bytes, size_t i) { return load_le<W>(bytes.data() + i * sizeof(W)); }
  static uint64_t random_step(std::mt19937_64* random) {
    const uint64_t bits = (*random)();
    if (bits % 4 < 2) return bits % 4;
    const uint64_t size = (*random)() >> (bits / 4 % 64);
    return (bits >> 16) % 2 != 0 ? size : ~size + 1;
  }
  size_t n_;
  StepCoding coding_;
  GuardedBytes words_;
  GuardedBytes next_;
  GuardedBytes earlier_;
  std::unique_ptr<ClassWindow> window_;
  std::vector<size_t> dense_;
};

TEST(Momentum, ExpectsSevenEighthsOfTheLastStep) {
  const auto momentum = [](int last) { return Momentum<uint16_t>(static_cast<uint16_t>(last)); };
  EXPECT_EQ(momentum(0).context, 0u);
  EXPECT_EQ(momentum(-1).context, 1u);
  EXPECT_EQ(momentum(-1).step_of(1), 0xFFFF) << "one on in the direction it had";
  EXPECT_EQ(momentum(16).context, 2u);
  EXPECT_EQ(momentum(16).expected, 14u);
  EXPECT_EQ(momentum(-16).step_of(0), static_cast<uint16_t>(-14));
  EXPECT_EQ(momentum(-16).rest_of(static_cast<uint16_t>(-16)), 2u);
  EXPECT_EQ(momentum(-0x8000).expected, 0x7000) << "the one that has no positive twin";
}

TEST(ClassKernels, TakeAndMakeSteps) {
  std::mt19937_64 random(3);
  for (const WordOrder order :
       {WordOrder::kUnsigned, WordOrder::kSigned, WordOrder::kSignMagnitude}) {
    for (const size_t n : {1U, 31U, 32U, 33U, 64U, 100U, 1000U, 8191U, 8192U}) {
      Steps<uint8_t> w8(order, n, &random);
      Steps<uint16_t> w16(order, n, &random);
      Steps<uint32_t> w32(order, n, &random);
      Steps<uint64_t> w64(order, n, &random);
      for (const Kernels* set : runnable_kernels()) {
        SCOPED_TRACE(std::string(set->name) + ", n " + std::to_string(n) + ", order " +
                     std::to_string(static_cast<int>(order)));
        for (const bool with_earlier : {false, true}) {
          w8.expect_taken_and_made(*set, with_earlier);
          w16.expect_taken_and_made(*set, with_earlier);
          w32.expect_taken_and_made(*set, with_earlier);
          w64.expect_taken_and_made(*set, with_earlier);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(ClassKernels, EncodeSymbolsAlikeAndDecodeThem) {
  std::mt19937_64 random(4);
  constexpr size_t kTables = 16;
  std::vector<SlotTable> slots(kTables);
  std::vector<RansRange> ranges(kTables * kRansTableSymbols);
  std::vector<std::vector<uint8_t>> used(kTables);
  for (size_t t = 0; t < kTables; ++t) {
    const StepTable& table = standard_table(static_cast<unsigned>(random() % kStandardTables));
    fill_slots(table.of, &slots[t]);
    uint16_t begin = 0;
    for (unsigned s = 0; s < kStepSymbols; ++s) {
      ranges[t * kRansTableSymbols + s] = {table.of[s], begin};
      begin = static_cast<uint16_t>(begin + table.of[s]);
      if (table.of[s] != 0) used[t].push_back(static_cast<uint8_t>(s));
    }
  }
  const Kernels& scalar = *runnable_kernels().front();
  for (unsigned log2_lanes = 2; log2_lanes <= 5; ++log2_lanes) {
    for (const size_t n : {1U, 3U, 4U, 15U, 16U, 17U, 31U, 32U, 33U, 63U, 100U, 8191U, 8192U}) {
      std::vector<uint8_t> tables(n);
      std::vector<uint8_t> symbols(n);
      std::vector<uint16_t> codes(n);
      for (size_t j = 0; j < n; ++j) {
        tables[j] = static_cast<uint8_t>(random() % kTables);
        // Mostly what is likely, so that states grow slowly too.
        const auto& candidates = used[tables[j]];
        symbols[j] =
            random() % 3 != 0 ? candidates.front() : candidates[random() % candidates.size()];
        codes[j] = static_cast<uint16_t>(tables[j] * kRansTableSymbols + symbols[j]);
      }
      const RansSymbols input{ranges.data(), codes.data(), n, log2_lanes};
      const auto encode = [&](const Kernels& set, std::vector<uint32_t>* states) {
        states->assign(size_t{1} << log2_lanes, 1U << kRansLog2Low);
        std::vector<uint16_t> words(n + kRansSlackWords);
        uint16_t* const end = words.data() + words.size();
        uint16_t* const begin = set.encode_symbols(input, states->data(), end);
        EXPECT_LE(static_cast<size_t>(end - begin), n);
        return std::vector<uint16_t>(begin, end);
      };
      std::vector<uint32_t> expected_states;
      const std::vector<uint16_t> expected = encode(scalar, &expected_states);
      for (const Kernels* set : runnable_kernels()) {
        SCOPED_TRACE(std::string(set->name) + ", n " + std::to_string(n) + ", lanes 2^" +
                     std::to_string(log2_lanes));
        std::vector<uint32_t> states;
        ASSERT_EQ(encode(*set, &states), expected);
        ASSERT_EQ(states, expected_states);
        std::vector<uint8_t> found(n);
        ASSERT_EQ(set->decode_symbols(
                      {slots.front().data(), tables.data(), n, log2_lanes,
                       reinterpret_cast<const std::byte*>(expected.data()), expected.size()},
                      states.data(), found.data()),
                  expected.size());
        ASSERT_EQ(found, symbols);
        for (const uint32_t state : states) ASSERT_EQ(state, 1U << kRansLog2Low);
      }
    }
  }
}

}  // namespace
}  // namespace siltstone
