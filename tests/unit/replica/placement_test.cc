// Tiles of slots against a map made element by element.
#include "replica/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "delta/diff.h"
#include "replica/overwrite.h"

namespace siltstone {
namespace {

TensorInfo tensor_of(std::vector<int64_t> shape, DType dtype = DType::kBF16) {
  const uint64_t size = *tensor_size_bytes(dtype, shape);
  return {"w", dtype, std::move(shape), size};
}

// A tile and the memory of an engine that it puts elements into, by brute force.
struct Case {
  TensorInfo tensor;
  std::vector<SlotTile> tiles;
  std::vector<std::byte> memory;

  std::vector<Placement::Part> parts() {
    std::vector<Placement::Part> out;
    for (const SlotTile& tile : tiles) out.push_back({tile, memory});
    return out;
  }
  unsigned word() const { return dtype_info(tensor.dtype).word_bytes; }
  // visit(source element, destination element)
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (const SlotTile& tile : tiles) {
      for (uint64_t r = 0; r < tile.rows; ++r) {
        for (uint64_t c = 0; c < tile.columns; ++c) {
          visit(tile.source_begin + r * tile.source_row_stride + c * tile.source_column_stride,
                tile.destination_begin + r * tile.destination_row_stride +
                    c * tile.destination_column_stride);
        }
      }
    }
  }
};

// Cuts a matrix of `rows` x `columns` at random, each piece plain, transposed, spread or
// interleaved in the memory; some have a second place.
Case random_case(std::mt19937_64& random, DType dtype) {
  const uint64_t rows = 1 + random() % 9;
  const uint64_t columns = 1 + random() % 700;
  Case made{tensor_of({static_cast<int64_t>(rows), static_cast<int64_t>(columns)}, dtype), {}, {}};
  uint64_t end = random() % 5;
  for (uint64_t begin = 0; begin < columns;) {
    const uint64_t width = std::min(columns - begin, 1 + random() % columns);
    for (uint64_t copies = 1 + random() % 4 / 3; copies > 0; --copies) {
      SlotTile tile{
          .source_begin = begin, .rows = rows, .columns = width, .source_row_stride = columns};
      const uint64_t spread = 1 + random() % 3;
      tile.destination_begin = end;
      if (random() % 2 == 0) {  // transposed
        tile.destination_row_stride = spread;
        tile.destination_column_stride = rows * spread;
      } else {
        tile.destination_column_stride = spread;
        tile.destination_row_stride = width * spread + random() % 3;
      }
      end += (rows - 1) * tile.destination_row_stride +
             (width - 1) * tile.destination_column_stride + 1 + random() % 4;
      made.tiles.push_back(tile);
    }
    begin += width;
  }
  std::shuffle(made.tiles.begin(), made.tiles.end(), random);
  made.memory.resize(end * made.word());
  for (std::byte& byte : made.memory) byte = static_cast<std::byte>(random());
  return made;
}

TEST(Placement, GathersAndOverwritesWhatTheTilesSay) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 300; ++round) {
    const DType dtype = std::array{DType::kU8, DType::kBF16, DType::kF32, DType::kI64}[round % 4];
    Case made = random_case(random, dtype);
    const unsigned word = made.word();
    std::vector<std::byte> next(made.tensor.size_bytes);
    for (std::byte& byte : next) byte = static_cast<std::byte>(random());
    std::vector<std::byte> expected = made.memory;
    std::vector<std::byte> now(next.size());
    made.for_each([&](uint64_t source, uint64_t destination) {
      std::memcpy(now.data() + source * word, made.memory.data() + destination * word, word);
      std::memcpy(expected.data() + destination * word, next.data() + source * word, word);
    });
    // A second place of an element holds what the first one does.
    made.for_each([&](uint64_t source, uint64_t destination) {
      std::memcpy(made.memory.data() + destination * word, now.data() + source * word, word);
    });
    const Result<Placement> place = Placement::make(made.tensor, made.parts());
    ASSERT_TRUE(place) << place.error().message;
    ASSERT_TRUE(find_ties({&*place, 1}));
    for (int part = 0; part < 4; ++part) {
      const uint64_t words = now.size() / word;
      const uint64_t begin = part == 0 ? 0 : random() % words;
      const uint64_t count = part == 0 ? words : 1 + random() % (words - begin);
      std::vector<std::byte> out(count * word);
      place->gather(begin * word, out);
      ASSERT_TRUE(std::ranges::equal(out, ByteSpan(now).subspan(begin * word, count * word)));
    }
    ChangeList changes(word);
    changes.append(next, now);
    Overwrites overwrites(UINT64_MAX);
    ASSERT_TRUE(
        overwrites.add(*place, {0, changes.positions(), changes.run_ends(), changes.words()}));
    overwrites.write();
    ASSERT_TRUE(made.memory == expected) << "round " << round;
  }
}

TEST(Placement, OneStretchIsUsedAsItIs) {
  std::vector<std::byte> memory(4096);
  const TensorInfo tensor = tensor_of({16, 8});
  SlotTile flat{.destination_begin = 100, .columns = 128};
  SlotTile rows{.destination_begin = 100,
                .rows = 16,
                .columns = 8,
                .source_row_stride = 8,
                .destination_row_stride = 8};
  for (const SlotTile& tile : {flat, rows}) {
    const auto place = Placement::make(tensor, {{tile, memory}});
    ASSERT_TRUE(place) << place.error().message;
    EXPECT_EQ(place->resident().data(), memory.data() + 200);
    EXPECT_EQ(place->resident().size(), tensor.size_bytes);
  }
  rows.destination_row_stride = 9;
  EXPECT_TRUE(Placement::make(tensor, {{rows, memory}})->resident().empty());
}

// Blocks that begin behind the first run of 65,536 words.
TEST(Placement, RunsOfLargeTensorsKeepTheirPlace) {
  constexpr uint64_t kRows = 3;
  constexpr uint64_t kColumns = 70'000;
  const TensorInfo tensor = tensor_of({kRows, kColumns});
  std::vector<std::byte> memory(tensor.size_bytes);
  const SlotTile transposed{.rows = kRows,
                            .columns = kColumns,
                            .source_row_stride = kColumns,
                            .destination_row_stride = 1,
                            .destination_column_stride = kRows};
  const auto place = *Placement::make(tensor, {{transposed, memory}});
  std::vector<std::byte> next(tensor.size_bytes);
  std::mt19937_64 random(2);
  for (std::byte& byte : next) byte = static_cast<std::byte>(random());
  Overwrites overwrites(UINT64_MAX);
  constexpr uint64_t kBegin = 1000;
  ChangeList changes(2);
  changes.append(ByteSpan(next).subspan(2 * kBegin), ByteSpan(memory).subspan(2 * kBegin));
  ASSERT_TRUE(overwrites.add(
      place, {2 * kBegin, changes.positions(), changes.run_ends(), changes.words()}));
  overwrites.write();
  std::vector<std::byte> out(tensor.size_bytes);
  place.gather(0, out);
  EXPECT_TRUE(
      std::ranges::equal(ByteSpan(out).subspan(2 * kBegin), ByteSpan(next).subspan(2 * kBegin)));
  EXPECT_TRUE(std::ranges::all_of(ByteSpan(out).first(2 * kBegin),
                                  [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST(Placement, TilesThatCannotBeAreRefused) {
  std::vector<std::byte> memory(2 * 64);
  const TensorInfo tensor = tensor_of({8, 8});
  const SlotTile whole{.columns = 64};
  ASSERT_TRUE(Placement::make(tensor, {{whole, memory}}));
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  const auto refused = [&](SlotTile tile, std::string_view part_of_message) {
    const auto place = Placement::make(tensor, {{tile, memory}});
    ASSERT_FALSE(place);
    EXPECT_EQ(place.error().code, Code::kInvalidArgument);
    EXPECT_NE(place.error().message.find(part_of_message), std::string::npos)
        << place.error().message;
  };
  refused({.source_begin = 1, .columns = 64}, "outside the tensor");
  refused({.source_begin = kHuge, .columns = 64}, "outside the tensor");
  refused({.rows = kHuge, .columns = 2, .source_row_stride = 4}, "outside the tensor");
  refused({.rows = 2, .columns = 2, .source_row_stride = UINT64_MAX}, "outside the tensor");
  refused({.columns = 0}, "outside the tensor");
  refused({.rows = 0, .columns = 64}, "outside the tensor");
  refused({.destination_begin = 1, .columns = 64}, "outside its destination");
  refused({.columns = 64, .destination_column_stride = UINT64_MAX}, "outside its destination");
  refused({.rows = 8, .columns = 8, .source_row_stride = 4, .destination_row_stride = 8}, "twice");
  refused({.columns = 64, .source_column_stride = 0}, "twice");
  refused({.columns = 63}, "leave out 1 of its 64 elements");
  EXPECT_FALSE(Placement::make(tensor, {}));
  EXPECT_TRUE(Placement::make(tensor_of({0, 8}), {}));
}

TEST(Placement, SharedMemoryIsNoticed) {
  std::vector<std::byte> memory(4 * 64);
  const TensorInfo tensor = tensor_of({8, 8});
  const auto at = [&](SlotTile tile) { return *Placement::make(tensor, {{tile, memory}}); };
  const SlotTile even{.columns = 64, .destination_column_stride = 2};
  const SlotTile odd{.destination_begin = 1, .columns = 64, .destination_column_stride = 2};
  const SlotTile left{
      .rows = 8, .columns = 8, .source_row_stride = 8, .destination_row_stride = 16};
  SlotTile right = left;
  right.destination_begin = 8;
  SlotTile beside = left;
  beside.destination_begin = 7;
  const auto apart = [&](const SlotTile& a, const SlotTile& b) {
    const std::vector<Placement> both = {at(a), at(b)};
    return bool(find_ties(both));
  };
  EXPECT_TRUE(apart(even, odd));
  EXPECT_FALSE(apart(even, even)) << "not whole: they cannot be told to be tied";
  EXPECT_TRUE(apart(left, right));
  EXPECT_FALSE(apart(left, beside));
  EXPECT_TRUE(apart({.columns = 64}, {.destination_begin = 64, .columns = 64}));
  EXPECT_FALSE(apart({.columns = 64}, {.destination_begin = 63, .columns = 64}));
  EXPECT_FALSE(find_ties(std::vector{at({.columns = 64, .destination_column_stride = 0})}))
      << "a tile that puts all its elements into one place";
}

TEST(Placement, WholeTensorsOnTheSameMemoryAreTied) {
  std::vector<std::byte> memory(4 * 64);
  const TensorInfo tensor = tensor_of({8, 8});
  const auto at = [&](uint64_t begin) {
    const SlotTile tile{.destination_begin = begin, .columns = 64};
    return *Placement::make(tensor, {{tile, memory}});
  };
  const auto ties = find_ties(std::vector{at(64), at(0), at(64), at(0)});
  ASSERT_TRUE(ties) << ties.error().message;
  EXPECT_EQ(*ties, (std::vector<size_t>{0, 1, 0, 1}));
  EXPECT_FALSE(find_ties(std::vector{at(64), at(0), at(32)}));
}

}  // namespace
}  // namespace siltstone
