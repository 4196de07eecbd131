#include "delta/grid.h"

#include <gtest/gtest.h>

#include <random>

#include "base/bytes.h"

namespace siltstone {
namespace {

WordMatrix matrix_of(DType dtype, std::vector<int64_t> shape, uint64_t size_bytes) {
  return word_matrix({"t", dtype, std::move(shape), size_bytes});
}

void expect_matrix(const WordMatrix& m, uint64_t rows, uint64_t cols, unsigned word_bytes) {
  EXPECT_EQ(m.rows, rows);
  EXPECT_EQ(m.cols, cols);
  EXPECT_EQ(m.word_bytes, word_bytes);
}

TEST(WordMatrixView, FollowsRankAndDtype) {
  expect_matrix(matrix_of(DType::kBF16, {}, 2), 1, 1, 2);
  expect_matrix(matrix_of(DType::kF32, {7}, 28), 7, 1, 4);
  expect_matrix(matrix_of(DType::kBF16, {30, 20}, 1200), 30, 20, 2);
  expect_matrix(matrix_of(DType::kC64, {2, 3, 4, 5}, 960), 24, 5, 8);
  expect_matrix(matrix_of(DType::kF8_E4M3, {3, 1}, 3), 3, 1, 1);
  expect_matrix(matrix_of(DType::kF4, {3, 4}, 6), 6, 1, 1);
  expect_matrix(matrix_of(DType::kF6_E2M3, {4}, 3), 3, 1, 1);
}

TEST(WordMatrixView, HasNoCellsWithoutElements) {
  expect_matrix(matrix_of(DType::kF32, {0}, 0), 0, 0, 4);
  expect_matrix(matrix_of(DType::kF32, {5, 0}, 0), 0, 0, 4);
  expect_matrix(matrix_of(DType::kF32, {int64_t{1} << 62, int64_t{1} << 62, 0}, 0), 0, 0, 4);
}

// What grid.h promises of every tiling, whatever the matrix.
void expect_tiling(const WordMatrix& m) {
  SCOPED_TRACE(testing::Message() << m.rows << " x " << m.cols << " of " << int{m.word_bytes});
  const uint64_t row_bytes = m.cols * m.word_bytes;
  uint64_t smallest_rows = 1;
  while (smallest_rows * row_bytes % 8 != 0) ++smallest_rows;
  const std::vector<Tile> tiles = default_tiles(m);
  uint64_t row = 0;
  for (size_t i = 0; i < tiles.size(); ++i) {
    ASSERT_EQ(tiles[i].row_begin, row);
    ASSERT_GT(tiles[i].rows, 0U);
    ASSERT_EQ(tiles[i].col_begin, 0U);
    ASSERT_EQ(tiles[i].cols, m.cols);
    ASSERT_EQ(row * row_bytes % 8, 0U);
    ASSERT_TRUE(tiles[i].rows * row_bytes <= kTileBytes || tiles[i].rows <= smallest_rows);
    ASSERT_TRUE(tiles[i].rows == tiles[0].rows || i + 1 == tiles.size());
    row += tiles[i].rows;
  }
  EXPECT_EQ(row, m.rows);
}

TEST(DefaultTiles, HaveWholeWordBoundariesAndBoundedSize) {
  for (const uint8_t word_bytes : {uint8_t{1}, uint8_t{2}, uint8_t{4}, uint8_t{8}}) {
    for (const uint64_t cols : {1ULL, 2ULL, 3ULL, 7ULL, 384ULL, 1000ULL, 4099ULL, 151936ULL,
                                (4ULL << 20) + 1, (32ULL << 20) + 1}) {
      for (const uint64_t rows : {1ULL, 2ULL, 7ULL, 8ULL, 9ULL, 1000ULL, 65537ULL}) {
        expect_tiling({rows, cols, word_bytes});
      }
    }
    expect_tiling({(uint64_t{1} << 31) + 1, 1, word_bytes});
  }
}

TEST(DefaultTiles, StartAtDigestBlocksWhereThatFits) {
  const WordMatrix embedding{30522, 384, 2};  // 768-byte rows: 32 of them fill 24 KiB
  const std::vector<Tile> tiles = default_tiles(embedding);
  EXPECT_EQ(tiles,
            (std::vector<Tile>{{0, 10912, 0, 384}, {10912, 10912, 0, 384}, {21824, 8698, 0, 384}}));

  const WordMatrix large{151936, 1536, 2};  // 3,072-byte rows: 8 of them fill 24 KiB
  const std::vector<Tile> parts = default_tiles(large);
  ASSERT_EQ(parts.size(), 56U);
  EXPECT_EQ(parts[1], (Tile{2728, 2728, 0, 1536}));
  EXPECT_EQ(parts[1].row_begin * 3072 % 8192, 0U);
}

TEST(DefaultTiles, FallBackToWordsAndThenToTheSmallestRange) {
  // 8,192 rows of 4,099 bytes exceed a tile; eight do not.
  EXPECT_EQ(default_tiles({20000, 4099, 1})[1], (Tile{2040, 2040, 0, 4099}));
  // Rows larger than a tile, each a whole number of words: one by one.
  EXPECT_EQ(default_tiles({3, (32ULL << 20) + 8, 1}).size(), 3U);
  // Eight odd rows are the least that ends at a word.
  EXPECT_EQ(default_tiles({17, (32ULL << 20) + 1, 1}),
            (std::vector<Tile>{{0, 8, 0, (32ULL << 20) + 1},
                               {8, 8, 0, (32ULL << 20) + 1},
                               {16, 1, 0, (32ULL << 20) + 1}}));
}

TEST(DefaultTiles, AreNoneWithoutElements) {
  EXPECT_TRUE(default_tiles({0, 0, 2}).empty());
}

TEST(DefaultTiles, CoverHugeTensors) {
  const WordMatrix huge{uint64_t{1} << 40, 1, 2};
  const std::vector<Tile> tiles = default_tiles(huge);
  ASSERT_EQ(tiles.size(), size_t{1} << 18);
  EXPECT_EQ(tiles.back(), (Tile{(uint64_t{1} << 40) - (4 << 20), 4 << 20, 0, 1}));

  // One row of nearly 2^63 bytes: eight of them, or 8,192, would overflow.
  const WordMatrix row{1, (uint64_t{1} << 62) + 1, 1};
  EXPECT_EQ(default_tiles(row), (std::vector<Tile>{{0, 1, 0, (uint64_t{1} << 62) + 1}}));
}

TEST(TileRanges, OfFullWidthAreOneRange) {
  const WordMatrix m{100, 10, 4};
  const Tile tile{20, 30, 0, 10};
  EXPECT_EQ(tile_ranges(m, tile, 0, 300), (std::vector<ByteRange>{{800, 1200}}));
  EXPECT_EQ(tile_ranges(m, tile, 7, 19), (std::vector<ByteRange>{{828, 48}}));
  EXPECT_TRUE(tile_ranges(m, tile, 9, 9).empty());
}

TEST(TileRanges, OfColumnsAreOnePerRowTouched) {
  const WordMatrix m{100, 10, 2};
  const Tile tile{50, 4, 3, 4};
  EXPECT_EQ(tile_ranges(m, tile, 0, 16),
            (std::vector<ByteRange>{{1006, 8}, {1026, 8}, {1046, 8}, {1066, 8}}));
  EXPECT_EQ(tile_ranges(m, tile, 2, 9), (std::vector<ByteRange>{{1010, 4}, {1026, 8}, {1046, 2}}));
  EXPECT_EQ(tile_ranges(m, tile, 5, 7), (std::vector<ByteRange>{{1028, 4}}));
}

TEST(TileRanges, VisitElementsInOrder) {
  std::mt19937_64 random(9);
  for (int round = 0; round < 200; ++round) {
    const WordMatrix m{1 + random() % 20, 1 + random() % 20, 2};
    Tile tile;
    tile.row_begin = random() % m.rows;
    tile.rows = 1 + random() % (m.rows - tile.row_begin);
    tile.col_begin = random() % m.cols;
    tile.cols = 1 + random() % (m.cols - tile.col_begin);
    const uint64_t begin = random() % (tile.elements() + 1);
    const uint64_t end = begin + random() % (tile.elements() - begin + 1);
    uint64_t element = begin;
    for (const ByteRange& range : tile_ranges(m, tile, begin, end)) {
      for (uint64_t at = range.offset; at < range.offset + range.length; at += 2, ++element) {
        const uint64_t row = tile.row_begin + element / tile.cols;
        const uint64_t col = tile.col_begin + element % tile.cols;
        ASSERT_EQ(at, (row * m.cols + col) * 2);
      }
    }
    EXPECT_EQ(element, end);
  }
}

TEST(TileRanges, ReachBeyondFourGigabytes) {
  const WordMatrix m{uint64_t{1} << 36, 16, 8};
  const Tile tile{(uint64_t{1} << 36) - 2, 2, 15, 1};
  EXPECT_EQ(tile_ranges(m, tile, 0, 2),
            (std::vector<ByteRange>{{(uint64_t{1} << 43) - 136, 8}, {(uint64_t{1} << 43) - 8, 8}}));
}

}  // namespace
}  // namespace siltstone
