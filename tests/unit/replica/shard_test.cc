// Engines of several ranks: each holds whole tensors of a version, or parts of them.
#include <gtest/gtest.h>

#include <random>

#include "siltstone/replica.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::TinyModel;

constexpr uint64_t kRows = 64;
constexpr uint64_t kColumns = 2100;  // rows times columns is more than a run of 65,536 words

class RanksTest : public ::testing::Test {
 protected:
  RanksTest() {
    model_.tensors.clear();
    add("a", {kRows, kColumns}, DType::kBF16);
    add("b", {kRows, kColumns}, DType::kBF16);
    add("c", {kRows, 40}, DType::kF32);
    add("norm", {kColumns}, DType::kBF16);
    add("only", {7, 11}, DType::kU8);
    repository_ = *Repository::init(std::make_shared<MemoryStore>("mem://ranks"));
    publish();
  }

  void add(const std::string& name, std::vector<int64_t> shape, DType dtype) {
    std::vector<std::byte> bytes(*tensor_size_bytes(dtype, shape));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
    model_.tensors.push_back({name, dtype, std::move(shape), std::move(bytes)});
  }
  void publish() {
    PublishOptions options;
    options.retained = &base_;
    const auto report = repository_->publish(*model_.checkpoint(), options);
    ASSERT_TRUE(report) << report.error().message;
    version_ = report->version;
  }
  void step(int times = 1) {
    for (int i = 0; i < times; ++i) {
      model_.step(random_());
      publish();
    }
  }

  std::mt19937_64 random_{17};
  TinyModel model_;
  RetainedBase base_;
  std::unique_ptr<Repository> repository_;
  Version version_;
};

// What one rank of a tensor-parallel pair holds.
struct Rank {
  explicit Rank(uint64_t its_number) : number(its_number) {}

  // Rows of a and, transposed, columns of b in one memory; columns of c; all of norm, twice;
  // nothing of only, but on rank 0.
  std::vector<Slot> slots() {
    const uint64_t half = kColumns / 2;
    std::vector<Slot> out = {
        {"a",
         fused,
         {{.source_begin = number * kRows / 2 * kColumns,
           .destination_begin = 3,
           .columns = kRows / 2 * kColumns}}},
        {"b",
         fused,
         {{.source_begin = number * half,
           .destination_begin = 3 + kRows / 2 * kColumns,
           .rows = kRows,
           .columns = half,
           .source_row_stride = kColumns,
           .destination_row_stride = 1,
           .destination_column_stride = kRows}}},
        {"c",
         own,
         {{.source_begin = number * 20,
           .rows = kRows,
           .columns = 20,
           .source_row_stride = 40,
           .destination_row_stride = 24}}},
        {"norm",
         norm,
         {{.columns = kColumns}, {.destination_begin = kColumns, .columns = kColumns}}},
    };
    if (number == 0) out.push_back({"only", only, {{.columns = 77}}});
    return out;
  }
  // What the engine's own loader does, element by element.
  void load(const TinyModel& model) {
    for (const Slot& slot : slots()) {
      const auto tensor = std::ranges::find(model.tensors, slot.tensor, &TinyModel::Tensor::name);
      const unsigned word = dtype_info(tensor->dtype).word_bytes;
      for (const SlotTile& tile : slot.tiles) {
        for (uint64_t i = 0; i < tile.rows * tile.columns; ++i) {
          const uint64_t r = i / tile.columns;
          const uint64_t c = i % tile.columns;
          const uint64_t from =
              tile.source_begin + r * tile.source_row_stride + c * tile.source_column_stride;
          const uint64_t to = tile.destination_begin + r * tile.destination_row_stride +
                              c * tile.destination_column_stride;
          std::memcpy(slot.destination.data() + to * word, tensor->bytes.data() + from * word,
                      word);
        }
      }
    }
  }
  auto memory() const { return std::tuple(fused, own, norm, only); }

  uint64_t number;
  std::vector<std::byte> fused = std::vector<std::byte>(kRows * kColumns * 2 + 8);
  std::vector<std::byte> own = std::vector<std::byte>(kRows * 24 * 4);
  std::vector<std::byte> norm = std::vector<std::byte>(kColumns * 4);
  std::vector<std::byte> only = std::vector<std::byte>(77);
};

class ShardTest : public RanksTest {
 protected:
  ShardTest() : copy_(model_) {
    host_ = *Replica::adopt(copy_.views(), version_);
    for (Rank& rank : ranks_) {
      rank.load(model_);
      shards_.push_back(*adopt(rank));
    }
  }
  Result<std::unique_ptr<Shard>> adopt(Rank& rank) {
    return Shard::adopt(*repository_, copy_.views(), rank.slots(), version_);
  }

  TinyModel copy_;  // the host's
  std::unique_ptr<Replica> host_;
  std::array<Rank, 2> ranks_{Rank(0), Rank(1)};
  std::vector<std::unique_ptr<Shard>> shards_;
};

TEST_F(ShardTest, RanksTakeWhatTheHostHasStaged) {
  for (int round = 0; round < 9; ++round) {
    step(1 + round % 3);
    auto staged = *host_->stage(*repository_, version_, {});
    const std::vector<std::byte> changes = *staged->changes();
    for (size_t r = 0; r < ranks_.size(); ++r) {
      const auto before = ranks_[r].memory();
      auto part = shards_[r]->stage(changes, version_, {});
      ASSERT_TRUE(part) << part.error().message;
      EXPECT_EQ(ranks_[r].memory(), before) << "staging writes nothing";
      EXPECT_EQ(shards_[r]->commit(*std::move(part)).outcome, Outcome::kApplied);
      const auto now = ranks_[r].memory();
      ranks_[r].load(model_);
      EXPECT_TRUE(now == ranks_[r].memory()) << "rank " << r << " at " << version_.id.name();
      EXPECT_EQ(shards_[r]->version().root, version_.root);
    }
    ASSERT_TRUE(host_->commit(std::move(staged)).status);
  }
}

TEST_F(ShardTest, AWrongMapIsNotAdopted) {
  Rank& rank = ranks_[1];
  const auto code = [&](std::vector<Slot> slots) {
    const auto shard = Shard::adopt(*repository_, copy_.views(), std::move(slots), version_);
    return shard ? Code::kInternal : shard.error().code;
  };
  auto slots = rank.slots();
  slots[0].tiles[0].source_begin = 0;
  EXPECT_EQ(code(slots), Code::kMismatch) << "the other rank's rows";
  slots = rank.slots();
  slots[1].tiles[0].destination_begin += 1;
  EXPECT_EQ(code(slots), Code::kMismatch);
  slots = rank.slots();
  slots[3].tiles[1].columns += 1;
  EXPECT_EQ(code(slots), Code::kInvalidArgument) << "outside the tensor";
  slots = rank.slots();
  slots.push_back({"only", rank.norm, {{.columns = 77}}});
  EXPECT_EQ(code(slots), Code::kInvalidArgument) << "memory that another tensor has";
  slots.assign({{"a", rank.fused, {{.columns = kRows * kColumns}}},
                {"b", rank.fused, {{.columns = kRows * kColumns}}}});
  EXPECT_EQ(code(slots), Code::kInvalidArgument) << "two tensors are one memory";
  slots = rank.slots();
  slots.push_back({"none", rank.own, {{.columns = 1}}});
  EXPECT_EQ(code(slots), Code::kMismatch) << "no such tensor";
  auto some = copy_.views();
  some.erase(some.begin());
  EXPECT_EQ(Shard::adopt(*repository_, some, rank.slots(), version_).error().code,
            Code::kInvalidArgument)
      << "no copy of a tensor that has a slot";
  some = copy_.views();
  some.pop_back();  // which only rank 0 has
  EXPECT_TRUE(Shard::adopt(*repository_, some, rank.slots(), version_));
  rank.norm[2 * kColumns] ^= std::byte{1};
  const auto shard = adopt(rank);
  ASSERT_FALSE(shard);
  EXPECT_EQ(shard.error().code, Code::kMismatch);
  EXPECT_NE(shard.error().message.find("'norm'"), std::string::npos) << "a second place differs";
}

TEST_F(ShardTest, ChangesOfOtherVersionsAreRefused) {
  step();
  const Version first = version_;
  const std::vector<std::byte> changes = *(*host_->stage(*repository_, first, {}))->changes();
  step();
  auto staged = shards_[0]->stage(changes, version_, {});
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kMismatch) << "they lead to the first";
  ASSERT_EQ(shards_[0]->commit(*shards_[0]->stage(changes, first, {})).outcome, Outcome::kApplied);
  staged = shards_[0]->stage(changes, first, {});
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kMismatch) << "they were applied";
}

TEST_F(ShardTest, DamagedChangesAreRefused) {
  step();
  const std::vector<std::byte> changes = *(*host_->stage(*repository_, version_, {}))->changes();
  const auto before = ranks_[0].memory();
  const auto expect_corrupt = [&](ByteSpan damaged) {
    const auto staged = shards_[0]->stage(damaged, version_, {});
    ASSERT_FALSE(staged);
    EXPECT_EQ(staged.error().code, Code::kCorrupt) << staged.error().message;
  };
  for (size_t size = 0; size < changes.size(); size += 1 + size / 9)
    expect_corrupt(ByteSpan(changes).first(size));
  for (int i = 0; i < 200; ++i) {
    std::vector<std::byte> damaged = changes;
    damaged[random_() % damaged.size()] ^= static_cast<std::byte>(1 << random_() % 8);
    expect_corrupt(damaged);
  }
  EXPECT_TRUE(ranks_[0].memory() == before);
}

TEST_F(ShardTest, ForeignWritesAreNoticed) {
  step();
  const std::vector<std::byte> changes = *(*host_->stage(*repository_, version_, {}))->changes();
  ranks_[1].fused[6 + kRows * kColumns] ^= std::byte{1};
  const auto staged = shards_[1]->stage(changes, version_, {});
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kMismatch);
  EXPECT_NE(staged.error().message.find("'b'"), std::string::npos) << staged.error().message;
}

TEST_F(ShardTest, StagingKeepsWithinItsMemory) {
  step();
  const std::vector<std::byte> changes = *(*host_->stage(*repository_, version_, {}))->changes();
  StageOptions options;
  options.memory_bytes = 1000;
  const auto staged = shards_[0]->stage(changes, version_, options);
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kUnsupported);
  EXPECT_NE(staged.error().message.find("allow more"), std::string::npos);
}

TEST_F(ShardTest, OnlyWholeTensorsTellWhatChanges) {
  Rank& rank = ranks_[0];
  rank.load(model_);
  std::vector<std::byte> transposed(kRows * kColumns * 2);
  std::vector<Slot> slots;
  for (const MutTensorView& view : copy_.views()) {
    const uint64_t words = view.bytes.size() / dtype_info(view.dtype).word_bytes;
    slots.push_back({view.name, view.bytes, {{.columns = words}}});
  }
  slots[0].destination = transposed;
  slots[0].tiles = {{.rows = kRows,
                     .columns = kColumns,
                     .source_row_stride = kColumns,
                     .destination_row_stride = 1,
                     .destination_column_stride = kRows}};
  for (uint64_t i = 0; i < kRows * kColumns; ++i)
    std::memcpy(transposed.data() + (i % kColumns * kRows + i / kColumns) * 2,
                model_.tensors[0].bytes.data() + i * 2, 2);
  const auto replica = Replica::adopt(*repository_->tensors(version_), slots, version_);
  ASSERT_TRUE(replica) << replica.error().message;
  step();
  const auto changes = (*(*replica)->stage(*repository_, version_, {}))->changes();
  ASSERT_FALSE(changes);
  EXPECT_EQ(changes.error().code, Code::kUnsupported);
}

// Expert and pipeline parallelism: a rank has some tensors whole.
class ShareTest : public RanksTest {
 protected:
  std::vector<Slot> slots() {
    return {{"a", a_, {{.columns = kRows * kColumns}}},
            {"only", only_, {{.destination_begin = 3, .columns = 77}}}};
  }
  void load() {
    a_ = model_.tensors[0].bytes;
    std::ranges::copy(model_.tensors[4].bytes, only_.begin() + 3);
  }
  Status move(Replica& replica, bool repair = false) {
    StageOptions options;
    options.repair = repair;
    auto staged = replica.stage(*repository_, version_, options);
    if (!staged) return std::move(staged).error();
    return replica.commit(*std::move(staged)).status;
  }

  std::vector<std::byte> a_ = std::vector<std::byte>(kRows * kColumns * 2);
  std::vector<std::byte> only_ = std::vector<std::byte>(80);
};

TEST_F(ShareTest, ARankFollowsWithTheTensorsThatItHas) {
  load();
  const auto replica = Replica::adopt_share(*repository_, slots(), version_);
  ASSERT_TRUE(replica) << replica.error().message;
  for (int round = 0; round < 8; ++round) {
    step(1 + round % 3);
    const bool repair = round % 4 == 3;
    if (repair) a_[5] ^= std::byte{1};
    const Status moved = move(**replica, repair);
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(a_, model_.tensors[0].bytes) << version_.id.name();
    EXPECT_TRUE(std::ranges::equal(ByteSpan(only_).subspan(3), model_.tensors[4].bytes));
  }
}

TEST_F(ShareTest, WhatItHasMustBeTheVersions) {
  const auto adopt = [&](std::vector<Slot> slots) {
    const auto replica = Replica::adopt_share(*repository_, std::move(slots), version_);
    return replica ? Code::kInternal : replica.error().code;
  };
  EXPECT_EQ(adopt(slots()), Code::kMismatch) << "not loaded";
  load();
  std::vector<Slot> wrong = slots();
  wrong[0].tiles[0].columns -= 1;
  EXPECT_EQ(adopt(wrong), Code::kInvalidArgument) << "a part of a tensor";
  const auto replica = *Replica::adopt_share(*repository_, slots(), version_);
  step();
  a_[9] ^= std::byte{1};
  const Status moved = move(*replica);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, Code::kMismatch);
}

}  // namespace
}  // namespace siltstone
