// What every codec of the table must hold, over all dtypes, densities and kinds of change.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tuple>

#include "base/parallel.h"
#include "delta/section.h"
#include "support/random_state.h"
#include "support/section_bytes.h"

namespace siltstone {
namespace {

using test::apply_section;
using test::Bytes;
using test::make_change;
using test::Pattern;
using test::PlainChange;
using test::Where;

Tile column_of(uint64_t elements) {
  return {0, elements, 0, 1};
}
WordMatrix matrix_of(const PlainChange& change) {
  return {change.elements(), 1, dtype_info(change.dtype).word_bytes};
}

Bytes encode(const PlainChange& change, const Codec* codec) {
  Bytes out;
  const Status status = append_section(change.view_with_past(), column_of(change.elements()),
                                       {1, 2}, {3, 4}, codec, &out);
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  return out;
}

void expect_round_trip(const PlainChange& change, const Codec* codec) {
  const Bytes section = encode(change, codec);
  EXPECT_EQ(section.size() % 4, 0u);
  std::vector<std::byte> words = change.old_words;
  const Result<uint64_t> changed =
      apply_section(section, matrix_of(change), change.dtype, &words, change.earlier_words);
  ASSERT_TRUE(changed) << changed.error().message;
  EXPECT_EQ(*changed, change.positions.size());
  EXPECT_TRUE(words == change.new_words);
  EXPECT_EQ(encode(change, codec), section) << "encoding is not deterministic";
}

// Codec index and dtype index.
class CodecContract : public testing::TestWithParam<std::tuple<size_t, size_t>> {
 protected:
  const Codec& codec() const { return *all_codecs()[std::get<0>(GetParam())]; }
  DType dtype() const { return all_dtypes()[std::get<1>(GetParam())].dtype; }
};

std::string param_name(const testing::TestParamInfo<std::tuple<size_t, size_t>>& info) {
  return std::string(all_codecs()[std::get<0>(info.param)]->name()) + "_" +
         std::string(all_dtypes()[std::get<1>(info.param)].name);
}

INSTANTIATE_TEST_SUITE_P(AllCodecsAndDTypes, CodecContract,
                         testing::Combine(testing::Range<size_t>(0, all_codecs().size()),
                                          testing::Range<size_t>(0, all_dtypes().size())),
                         param_name);

TEST_P(CodecContract, RoundTripsOverDensitiesAndPatterns) {
  const Where places[] = {{Where::kFirst, 0},       {Where::kLast, 0},      {Where::kStretch, 0},
                          {Where::kRate, 100},      {Where::kRate, 10'000}, {Where::kRate, 300'000},
                          {Where::kRate, 1'000'000}};
  uint64_t seed = 1;
  for (const Where& where : places) {
    for (const Pattern pattern : test::kPatterns) {
      SCOPED_TRACE(testing::Message() << "place " << where.kind << " rate " << where.per_million
                                      << " pattern " << static_cast<int>(pattern));
      const PlainChange change = make_change(dtype(), 20'000, 16, where, pattern, seed++);
      if (!change.positions.empty()) expect_round_trip(change, &codec());
    }
  }
}

TEST_P(CodecContract, RoundTripsEveryShapeOfBlocks) {
  constexpr uint64_t kBlock = kRunElements;
  for (const uint64_t elements :
       {uint64_t{1}, uint64_t{2}, uint64_t{7}, kBlock - 1, kBlock, kBlock + 1, 3 * kBlock - 5}) {
    for (const Where where : {Where{Where::kFirst, 0}, Where{Where::kLast, 0},
                              Where{Where::kRate, 3'000}, Where{Where::kRate, 1'000'000}}) {
      SCOPED_TRACE(testing::Message() << elements << " elements, place " << where.kind);
      const PlainChange change =
          make_change(dtype(), elements, 16, where, Pattern::kNeighbours, elements);
      if (!change.positions.empty()) expect_round_trip(change, &codec());
    }
  }
}

TEST_P(CodecContract, RoundTripsBlocksOfManyRuns) {
  const PlainChange change =
      make_change(dtype(), 5 * kRunElements / 2, 17, {Where::kRate, 2'000}, Pattern::kRandom, 99);
  expect_round_trip(change, &codec());
}

TEST_P(CodecContract, LeavesUntouchedBlocksEmpty) {
  const PlainChange change =
      make_change(dtype(), 3 * kRunElements, 16, {Where::kLast, 0}, Pattern::kRandom, 5);
  const Bytes bytes = encode(change, &codec());
  const Result<Section> section = Section::open(bytes, matrix_of(change), change.dtype);
  ASSERT_TRUE(section);
  EXPECT_FALSE(section->touches(0));
  EXPECT_FALSE(section->touches(1));
  EXPECT_TRUE(section->touches(2));
  std::vector<std::byte> words(kRunElements * dtype_info(dtype()).word_bytes, std::byte{0x5A});
  const std::vector<std::byte> before = words;
  const Result<uint64_t> changed = section->apply(1, words);
  ASSERT_TRUE(changed);
  EXPECT_EQ(*changed, 0u);
  EXPECT_EQ(words, before);
}

TEST_P(CodecContract, DecodesBlocksInAnyOrder) {
  const PlainChange change =
      make_change(dtype(), 3 * kRunElements, 16, {Where::kRate, 500}, Pattern::kRandom, 6);
  const Bytes bytes = encode(change, &codec());
  const Result<Section> section = Section::open(bytes, matrix_of(change), change.dtype);
  ASSERT_TRUE(section);
  const size_t block_bytes = kRunElements * dtype_info(dtype()).word_bytes;
  std::vector<std::byte> words = change.old_words;
  for (const uint64_t block : {2, 0, 1})
    ASSERT_TRUE(
        section->apply(block, MutByteSpan(words).subspan(block * block_bytes, block_bytes),
                       ByteSpan(change.earlier_words).subspan(block * block_bytes, block_bytes)));
  EXPECT_TRUE(words == change.new_words);
}

// With the checksum set right again, a flipped bit may decode to something else, but never
// crashes; and the length of the words is never left.
TEST_P(CodecContract, SurvivesEveryBitFlip) {
  const PlainChange change =
      make_change(dtype(), 40, 16, {Where::kRate, 200'000}, Pattern::kSpecials, 17);
  ASSERT_FALSE(change.positions.empty());
  const Bytes good = encode(change, &codec());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= std::byte{1} << (bit % 8);
    std::vector<std::byte> words = change.old_words;
    EXPECT_FALSE(apply_section(bad, matrix_of(change), change.dtype, &words, change.earlier_words))
        << "bit " << bit;
    test::seal(&bad);
    words = change.old_words;
    const Result<uint64_t> changed =
        apply_section(bad, matrix_of(change), change.dtype, &words, change.earlier_words);
    EXPECT_TRUE(!changed || *changed <= change.elements());
  }
}

TEST_P(CodecContract, RefusesEveryTruncation) {
  const PlainChange change =
      make_change(dtype(), 40, 16, {Where::kRate, 200'000}, Pattern::kSpecials, 18);
  ASSERT_FALSE(change.positions.empty());
  const Bytes good = encode(change, &codec());
  for (size_t length = 0; length < good.size(); ++length) {
    Bytes bad(good.begin(), good.begin() + static_cast<ptrdiff_t>(length));
    std::vector<std::byte> words = change.old_words;
    const Result<uint64_t> whole =
        apply_section(bad, matrix_of(change), change.dtype, &words, change.earlier_words);
    ASSERT_FALSE(whole) << length << " bytes";
    EXPECT_EQ(whole.error().code, Code::kCorrupt);
    test::seal(&bad);
    EXPECT_FALSE(apply_section(bad, matrix_of(change), change.dtype, &words, change.earlier_words))
        << length << " bytes";
  }
}

TEST_P(CodecContract, GuessesOfSizeAreNearTheTruth) {
  for (const uint32_t per_million : {1'000u, 10'000u, 300'000u}) {
    PlainChange change = make_change(dtype(), 300'000, 20, {Where::kRate, per_million},
                                     Pattern::kNeighbours, per_million);
    change.earlier_words = change.old_words;
    const Bytes section = encode(change, &codec());
    const auto guess = static_cast<double>(codec().estimate_bytes(change.view_with_past()));
    const auto truth = static_cast<double>(section.size());
    EXPECT_LT(guess, 1.4 * truth + 200) << per_million;
    EXPECT_GT(guess, 0.6 * truth - 200) << per_million;
  }
}

// The longest gaps: nothing changes between the ends of the largest block.
TEST(CodecBlocks, MayHave16MillionElements) {
  constexpr size_t kElements = size_t{1} << 24;
  std::vector<std::byte> old_words(kElements);
  std::vector<std::byte> new_words(kElements);
  new_words.front() = std::byte{1};
  new_words.back() = std::byte{255};
  const PlainChange change(DType::kI8, 24, std::move(old_words), std::move(new_words));
  for (const Codec* codec : all_codecs()) expect_round_trip(change, codec);
}

TEST(CodecBlocks, AreDecodedOnManyThreads) {
  for (const Codec* codec : all_codecs()) {
    const PlainChange change = make_change(DType::kBF16, 24 * kRunElements - 9, 16,
                                           {Where::kRate, 20'000}, Pattern::kNeighbours, 77);
    const Bytes bytes = encode(change, codec);
    const Result<Section> section = Section::open(bytes, matrix_of(change), change.dtype);
    ASSERT_TRUE(section);
    std::vector<std::byte> words = change.old_words;
    const Status applied = parallel_for(24, 4, [&](uint64_t block, unsigned) -> Status {
      const uint64_t begin = block * 2 * kRunElements;
      const uint64_t length = std::min<uint64_t>(2 * kRunElements, words.size() - begin);
      const auto changed = section->apply(block, MutByteSpan(words).subspan(begin, length),
                                          ByteSpan(change.earlier_words).subspan(begin, length));
      return changed ? Status() : changed.error();
    });
    ASSERT_TRUE(applied) << applied.error().message;
    EXPECT_TRUE(words == change.new_words);
  }
}

TEST(CodecTable, HasUniqueIdsAndNamesInOrder) {
  std::set<std::string_view> names;
  uint16_t previous = 0;
  for (const Codec* codec : all_codecs()) {
    EXPECT_GT(codec->id(), previous);
    previous = codec->id();
    EXPECT_TRUE(names.insert(codec->name()).second);
    EXPECT_EQ(find_codec(codec->id()), codec);
    EXPECT_EQ(find_codec(codec->name()), codec);
  }
  EXPECT_EQ(find_codec(uint16_t{0}), nullptr);
  EXPECT_EQ(find_codec("no such codec"), nullptr);
}

TEST(CodecTable, PinsIdsAndNeeds) {
  ASSERT_NE(find_codec("raw"), nullptr);
  EXPECT_EQ(find_codec("raw")->id(), 1);
  EXPECT_EQ(find_codec("raw")->need(), Need::kNothing);
  EXPECT_EQ(find_codec("step")->id(), 2);
  EXPECT_EQ(find_codec("step")->need(), Need::kChangedWords);
  EXPECT_EQ(find_codec("dense")->id(), 3);
  EXPECT_EQ(find_codec("dense")->need(), Need::kNothing);
  ASSERT_NE(find_codec("class"), nullptr);
  EXPECT_EQ(find_codec("class")->id(), 4);
  EXPECT_EQ(find_codec("class")->need(), Need::kAllWords);
  ASSERT_NE(find_codec("dense_delta"), nullptr);
  EXPECT_EQ(find_codec("dense_delta")->id(), 5);
  EXPECT_EQ(find_codec("dense_delta")->need(), Need::kAllWords);
  ASSERT_NE(find_codec("momentum"), nullptr);
  EXPECT_EQ(find_codec("momentum")->id(), 6);
  EXPECT_EQ(find_codec("momentum")->need(), Need::kEarlierWords);
}

TEST(CodecChoice, LeavesOutWhatNeedsTheVersionBeforeWhereItIsNotKnown) {
  const PlainChange change =
      make_change(DType::kBF16, 30'000, 16, {Where::kRate, 300'000}, Pattern::kNeighbours, 5);
  Bytes section;
  ASSERT_TRUE(append_section(change.view(), column_of(30'000), {}, {}, nullptr, &section));
  EXPECT_NE(parse_section_header(section)->need, Need::kEarlierWords);
  const Status forced =
      append_section(change.view(), column_of(30'000), {}, {}, find_codec("momentum"), &section);
  ASSERT_FALSE(forced);
  EXPECT_EQ(forced.error().code, Code::kUnsupported);
}

TEST(CodecNeeds, AreRefusedWhereTheyAreNotMet) {
  const PlainChange change =
      make_change(DType::kBF16, 30'000, 16, {Where::kRate, 300'000}, Pattern::kNeighbours, 6);
  const Bytes section = encode(change, find_codec("momentum"));
  std::vector<std::byte> words = change.old_words;
  const Result<uint64_t> applied =
      apply_section(section, matrix_of(change), change.dtype, &words, {});
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Code::kInvalidArgument);
}

TEST(CodecChoice, IsNearTheSmallestAndNeverLargerThanRaw) {
  uint64_t seed = 1000;
  for (const DTypeInfo& info : all_dtypes()) {
    for (const uint32_t per_million : {50u, 10'000u, 300'000u, 1'000'000u}) {
      for (const Pattern pattern : test::kPatterns) {
        const PlainChange change =
            make_change(info.dtype, 30'000, 16, {Where::kRate, per_million}, pattern, seed++);
        if (change.positions.empty()) continue;
        SCOPED_TRACE(testing::Message() << info.name << " rate " << per_million << " pattern "
                                        << static_cast<int>(pattern));
        size_t smallest = SIZE_MAX;
        for (const Codec* codec : all_codecs())
          smallest = std::min(smallest, encode(change, codec).size());
        const Bytes chosen = encode(change, nullptr);
        EXPECT_LE(chosen.size(), encode(change, find_codec("raw")).size());
        EXPECT_LE(chosen.size(), smallest + smallest / 5);
        expect_round_trip(change, nullptr);
      }
    }
  }
}

// As rows of an embedding change: samples miss them, so guesses are wrong.
TEST(CodecChoice, IsNearTheSmallestWhereChangesComeInClusters) {
  constexpr uint64_t kElements = uint64_t{1} << 21;
  test::Random random(7);
  for (const uint64_t clusters : {1, 5, 30}) {
    std::vector<std::byte> old_words(2 * kElements);
    for (uint64_t i = 0; i < kElements; ++i)
      store_le(old_words.data() + 2 * i,
               static_cast<uint16_t>(0x3C80 - random.below(0x400) * random.below(0x400) / 0x400));
    std::vector<std::byte> new_words = old_words;
    for (uint64_t c = 0; c < clusters; ++c) {
      std::byte* const row = new_words.data() + 2 * random.below(kElements - 384);
      for (uint64_t i = 0; i < 384; ++i) {
        const auto word = load_le<uint16_t>(row + 2 * i);
        store_le(row + 2 * i, static_cast<uint16_t>(word + random.below(2)));
      }
    }
    const PlainChange change(DType::kBF16, kDefaultLog2Block, std::move(old_words),
                             std::move(new_words));
    size_t smallest = SIZE_MAX;
    for (const Codec* codec : all_codecs())
      smallest = std::min(smallest, encode(change, codec).size());
    EXPECT_LE(encode(change, nullptr).size(), smallest + smallest / 5) << clusters;
    expect_round_trip(change, nullptr);
  }
}

}  // namespace
}  // namespace siltstone
