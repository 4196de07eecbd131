#include "delta/section.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "support/allocation_watch.h"
#include "support/hostile_sections.h"
#include "support/random_state.h"
#include "support/section_bytes.h"

namespace siltstone {
namespace {

using test::Bytes;
using test::make_change;
using test::Pattern;
using test::PlainChange;
using test::SectionBytes;
using test::Where;

TEST(HostileSection, IsRefusedWithoutLargeAllocation) {
  const auto cases = test::hostile_sections();
  EXPECT_GE(cases.size(), 60u);
  std::set<std::string> names;
  for (const auto& hostile : cases) {
    SCOPED_TRACE(hostile.name);
    EXPECT_TRUE(names.insert(hostile.name).second);
    std::vector<std::byte> words(hostile.matrix.words() * hostile.matrix.word_bytes);
    const std::vector<std::byte> earlier(words.size());
    test::reset_largest_allocation();
    const Result<uint64_t> changed =
        test::apply_section(hostile.bytes, hostile.matrix, hostile.dtype, &words, earlier);
    // Scratch is at most the words of a block and its payload, or the tables of 16 dense classes,
    // three each; messages are short.
    EXPECT_LE(test::largest_allocation(),
              std::max<uint64_t>(words.size() + hostile.bytes.size() + 1024, 3 * 16 * 1024 * 4));
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().code, hostile.code) << changed.error().message;
    EXPECT_FALSE(changed.error().message.empty());
  }
}

TEST(HostileSection, MessagesTellCasesApart) {
  std::map<std::string, std::string> seen;
  for (const auto& hostile : test::hostile_sections()) {
    std::vector<std::byte> words(hostile.matrix.words() * hostile.matrix.word_bytes);
    const std::vector<std::byte> earlier(words.size());
    const Result<uint64_t> changed =
        test::apply_section(hostile.bytes, hostile.matrix, hostile.dtype, &words, earlier);
    ASSERT_FALSE(changed);
    seen[changed.error().message] = hostile.name;
  }
  EXPECT_GE(seen.size(), 50u);
}

TEST(Section, HandMadeBytesDecode) {
  // Element 3 up by one, element 5 (one unchanged between) down by 4 = 1 + far 3: size 1, bit 1.
  SectionBytes section;
  section.codec = 2;
  section.need = 1;
  section.changed = 2;
  Bytes payload;
  for (const uint32_t field : {2u, 2u, 1u}) test::append_le(field, &payload);
  for (const unsigned byte : {3u << 2 | 0u, 1u << 2 | 3u, 1u, 1u})
    payload.push_back(static_cast<std::byte>(byte));
  section.blocks = {payload};
  std::vector<std::byte> words(200);
  store_le(words.data() + 6, uint16_t{0x3F80});
  store_le(words.data() + 10, uint16_t{0x0002});
  const Result<uint64_t> changed =
      test::apply_section(section.build(), {100, 1, 2}, DType::kBF16, &words);
  ASSERT_TRUE(changed) << changed.error().message;
  EXPECT_EQ(*changed, 2u);
  EXPECT_EQ(load_le<uint16_t>(words.data() + 6), 0x3F81);
  // 0x0002 is two above +0; +0 is one above -0, so four down is 0x8001.
  EXPECT_EQ(load_le<uint16_t>(words.data() + 10), 0x8001);
}

TEST(Section, HeaderComesBack) {
  const PlainChange change =
      make_change(DType::kF32, 96, 16, {Where::kRate, 300'000}, Pattern::kNeighbours, 3);
  const Tile tile{8, 12, 16, 8};
  Bytes bytes;
  ASSERT_TRUE(append_section(change.view(), tile, {1, 2}, {3, 4}, find_codec("step"), &bytes));
  const Result<SectionHeader> header = parse_section_header(bytes);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->dtype, DType::kF32);
  EXPECT_EQ(header->codec, 2);
  EXPECT_EQ(header->need, Need::kChangedWords);
  EXPECT_EQ(header->log2_block, 16);
  EXPECT_EQ(header->section_bytes, bytes.size());
  EXPECT_EQ(header->tile, tile);
  EXPECT_EQ(header->changed, change.positions.size());
  EXPECT_EQ(header->sum_before, (Sum128{1, 2}));
  EXPECT_EQ(header->sum_after, (Sum128{3, 4}));
  EXPECT_EQ(header->blocks(), 1u);
  EXPECT_TRUE(Section::open(bytes, {20, 24, 4}, DType::kF32));
  EXPECT_FALSE(Section::open(bytes, {19, 24, 4}, DType::kF32));
  EXPECT_FALSE(Section::open(bytes, {20, 23, 4}, DType::kF32));
}

TEST(Section, SmallBlocksAreAnotherReadersBusiness) {
  SectionBytes section;
  section.log2_block = 13;
  section.blocks = {Bytes(16)};
  const Result<SectionHeader> header = parse_section_header(section.build());
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Code::kUnsupported);
}

TEST(Section, RefusesWordsOfAnotherSize) {
  const PlainChange change =
      make_change(DType::kU16, 100, 16, {Where::kFirst, 0}, Pattern::kRandom, 4);
  Bytes bytes;
  ASSERT_TRUE(append_section(change.view(), {0, 100, 0, 1}, {}, {}, nullptr, &bytes));
  const Result<Section> section = Section::open(bytes, {100, 1, 2}, DType::kU16);
  ASSERT_TRUE(section);
  std::vector<std::byte> words(202);
  EXPECT_EQ(section->apply(0, words).error().code, Code::kInvalidArgument);
  EXPECT_EQ(section->apply(1, MutByteSpan(words).first(200)).error().code, Code::kInvalidArgument);
}

TEST(Section, RefusesChangeListsThatDoNotFit) {
  const PlainChange change =
      make_change(DType::kU16, 100, 16, {Where::kFirst, 0}, Pattern::kRandom, 4);
  Bytes bytes;
  EXPECT_FALSE(append_section(change.view(), {0, 99, 0, 1}, {}, {}, nullptr, &bytes));
  TileChange small_blocks = change.view();
  small_blocks.log2_block = 15;
  EXPECT_FALSE(append_section(small_blocks, {0, 100, 0, 1}, {}, {}, nullptr, &bytes));
  EXPECT_TRUE(bytes.empty());
}

TEST(Section, ReusesScratchBetweenBlocks) {
  const PlainChange change = make_change(DType::kBF16, 4 * kRunElements, 16, {Where::kRate, 10'000},
                                         Pattern::kNeighbours, 12);
  Bytes bytes;
  ASSERT_TRUE(append_section(change.view(), {0, change.elements(), 0, 1}, {}, {},
                             find_codec("step"), &bytes));
  std::vector<std::byte> words = change.old_words;
  const Result<Section> section = Section::open(bytes, {change.elements(), 1, 2}, DType::kBF16);
  ASSERT_TRUE(section);
  const MutByteSpan block = MutByteSpan(words).first(2 * kRunElements);
  ASSERT_TRUE(section->apply(0, block));
  std::vector<std::byte> again(change.old_words.begin(),
                               change.old_words.begin() + 2 * kRunElements);
  test::reset_largest_allocation();
  ASSERT_TRUE(section->apply(0, again));
  EXPECT_EQ(test::largest_allocation(), 0u);
}

Bytes section_of(const Tile& tile) {
  SectionBytes section;
  section.row_begin = tile.row_begin;
  section.rows = tile.rows;
  section.col_begin = tile.col_begin;
  section.cols = tile.cols;
  Bytes payload;
  test::append_le(uint32_t{1}, &payload);
  test::append_le(uint32_t{0}, &payload);
  test::append_le(uint16_t{1}, &payload);
  section.blocks = {payload};
  return section.build();
}

TEST(SplitSections, WalksAnEntry) {
  Bytes entry = section_of({0, 4, 0, 8});
  const Bytes second = section_of({4, 4, 0, 8});
  entry.insert(entry.end(), second.begin(), second.end());
  const Result<std::vector<ByteSpan>> sections = split_sections(entry);
  ASSERT_TRUE(sections);
  ASSERT_EQ(sections->size(), 2u);
  EXPECT_TRUE(std::ranges::equal((*sections)[1], second));
  EXPECT_TRUE(split_sections({}));
  for (size_t length = 1; length < entry.size(); ++length)
    EXPECT_EQ(split_sections(ByteSpan(entry).first(length)).has_value(), length == second.size());
}

TEST(SplitSections, RefusesOverlap) {
  Bytes entry = section_of({0, 4, 0, 8});
  const Bytes second = section_of({3, 4, 7, 8});
  entry.insert(entry.end(), second.begin(), second.end());
  EXPECT_FALSE(split_sections(entry));
}

// Against every pair, on random sets of small tiles.
TEST(CheckDisjoint, AgreesWithComparingPairs) {
  test::Random random(8);
  int disjoint = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<Tile> tiles;
    for (uint64_t count = 1 + random.below(5); count > 0; --count)
      tiles.push_back({random.below(8), 1 + random.below(3), random.below(8), 1 + random.below(3)});
    bool overlap = false;
    const auto meet = [](uint64_t a, uint64_t na, uint64_t b, uint64_t nb) {
      return a < b + nb && b < a + na;
    };
    for (size_t i = 0; i < tiles.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        overlap |= meet(tiles[i].row_begin, tiles[i].rows, tiles[j].row_begin, tiles[j].rows) &&
                   meet(tiles[i].col_begin, tiles[i].cols, tiles[j].col_begin, tiles[j].cols);
    EXPECT_EQ(check_disjoint(tiles).has_value(), !overlap);
    disjoint += overlap ? 0 : 1;
  }
  EXPECT_GT(disjoint, 300);
  EXPECT_LT(disjoint, 2700);
}

}  // namespace
}  // namespace siltstone
