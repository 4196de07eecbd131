// Replicas of tensors that lie in an engine's fused, stacked and reordered parameters.
#include <gtest/gtest.h>

#include <random>

#include "siltstone/replica.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::TinyModel;

constexpr uint64_t kHidden = 96;
constexpr uint64_t kVocabulary = 50;
constexpr uint64_t kPadded = 64;  // rows of the engine's embedding

// A checkpoint of a small decoder, and an engine's parameters for it.
class SlotsTest : public ::testing::Test {
 protected:
  SlotsTest() {
    model_.tensors.clear();
    add("bias", {33}, DType::kF32);
    add("embed", {kVocabulary, kHidden}, DType::kBF16);
    add("k", {32, kHidden}, DType::kBF16);
    add("mixed", {40, kHidden}, DType::kBF16);
    add("q", {96, kHidden}, DType::kBF16);
    add("scale", {}, DType::kF32);
    add("v", {32, kHidden}, DType::kBF16);
    add("w2", {kHidden, 40}, DType::kF8_E4M3);
    qkv_.resize(160 * kHidden * 2);
    embed_.assign(kPadded * kHidden * 2, std::byte{0xEE});
    transposed_.resize(kHidden * 40 * 2);
    w2_.resize(kHidden * 48, std::byte{0xDD});
    own_.resize(4096);
    slots_ = {
        {"q", qkv_, {{.columns = 96 * kHidden}}},
        {"k", qkv_, {{.destination_begin = 96 * kHidden, .columns = 32 * kHidden}}},
        {"v", qkv_, {{.destination_begin = 128 * kHidden, .columns = 32 * kHidden}}},
        {"embed", embed_, {{.columns = kVocabulary * kHidden}}},
        {"mixed",
         transposed_,
         {{.rows = 40,
           .columns = kHidden,
           .source_row_stride = kHidden,
           .destination_row_stride = 1,
           .destination_column_stride = 40}}},
        // Rows padded from 40 to 48, the first half of each behind the second.
        {"w2",
         w2_,
         {{.destination_begin = 20,
           .rows = kHidden,
           .columns = 20,
           .source_row_stride = 40,
           .destination_row_stride = 48},
          {.source_begin = 20,
           .rows = kHidden,
           .columns = 20,
           .source_row_stride = 40,
           .destination_row_stride = 48}}},
        {"bias", own_, {{.destination_begin = 5, .columns = 33}}},
        {"scale", own_, {{.destination_begin = 200, .columns = 1}}},
    };
    repository_ = *Repository::init(std::make_shared<MemoryStore>("mem://slots"));
    publish();
    load(model_);
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
  // What the engine's own loader does, element by element.
  void load(const TinyModel& model) {
    for (const Slot& slot : slots_) {
      const auto tensor = std::ranges::find(model.tensors, slot.tensor, &TinyModel::Tensor::name);
      const unsigned word = dtype_info(tensor->dtype).word_bytes;
      for (const SlotTile& tile : slot.tiles) {
        for (uint64_t r = 0; r < tile.rows; ++r) {
          for (uint64_t c = 0; c < tile.columns; ++c) {
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
  }
  std::vector<std::vector<std::byte>> memory() const {
    return {qkv_, embed_, transposed_, w2_, own_};
  }
  Result<std::unique_ptr<Replica>> adopt() {
    return Replica::adopt(*repository_->tensors(version_), slots_, version_);
  }
  Status move(Replica& replica, const StageOptions& options = {}) {
    auto staged = replica.stage(*repository_, version_, options);
    if (!staged) return std::move(staged).error();
    return replica.commit(*std::move(staged)).status;
  }

  std::mt19937_64 random_{5};
  TinyModel model_;
  std::vector<std::byte> qkv_, embed_, transposed_, w2_, own_;
  std::vector<Slot> slots_;
  RetainedBase base_;
  std::unique_ptr<Repository> repository_;
  Version version_;
};

TEST_F(SlotsTest, VersionsArriveAsTheLoaderWouldPutThem) {
  const auto replica = adopt();
  ASSERT_TRUE(replica) << replica.error().message;
  for (int step = 0; step < 12; ++step) {
    const int behind = 1 + step % 3;
    for (int i = 0; i < behind; ++i) {
      model_.step(random_());
      publish();
    }
    const auto before = memory();
    auto staged = (*replica)->stage(*repository_, version_, {});
    ASSERT_TRUE(staged) << staged.error().message;
    EXPECT_EQ(memory(), before) << "staging writes nothing";
    EXPECT_EQ((*staged)->digests(), *repository_->digests(version_));
    ASSERT_TRUE((*replica)->commit(*std::move(staged)).status);
    const auto now = memory();
    load(model_);
    EXPECT_EQ(now, memory()) << "step " << step;
  }
  EXPECT_TRUE(std::ranges::all_of(ByteSpan(embed_).subspan(kVocabulary * kHidden * 2),
                                  [](std::byte byte) { return byte == std::byte{0xEE}; }))
      << "padding is not touched";
}

TEST_F(SlotsTest, AMapThatIsWrongIsNotAdopted) {
  const auto expect_mismatch = [&](const std::vector<Slot>& slots) {
    const auto replica = Replica::adopt(*repository_->tensors(version_), slots, version_);
    ASSERT_FALSE(replica);
    EXPECT_EQ(replica.error().code, Code::kMismatch) << replica.error().message;
  };
  std::vector<Slot> slots = slots_;
  std::swap(slots[1].tiles, slots[2].tiles);  // k and v
  expect_mismatch(slots);
  slots = slots_;
  slots[5].tiles[0].destination_begin = 0;  // halves in the other order
  slots[5].tiles[1].destination_begin = 20;
  expect_mismatch(slots);
  slots = slots_;
  slots[6].tiles[0].destination_begin = 6;  // shifted by one
  expect_mismatch(slots);
}

TEST_F(SlotsTest, EveryTensorNeedsItsPlaceAndNoOther) {
  const auto code = [&](const std::vector<Slot>& slots) {
    const auto replica = Replica::adopt(*repository_->tensors(version_), slots, version_);
    return replica ? Code::kInternal : replica.error().code;
  };
  std::vector<Slot> slots = slots_;
  slots.pop_back();
  EXPECT_EQ(code(slots), Code::kInvalidArgument) << "a tensor is left out";
  slots = slots_;
  slots.push_back({"lm_head", own_, {{.columns = 1}}});
  EXPECT_EQ(code(slots), Code::kMismatch) << "the version has no such tensor";
  slots = slots_;
  slots[7].tiles[0].destination_begin = 37;
  EXPECT_EQ(code(slots), Code::kInvalidArgument) << "two tensors share memory";
}

TEST_F(SlotsTest, ChangedMemoryIsNoticedAndRepaired) {
  const auto replica = *adopt();
  model_.step(1);
  publish();
  transposed_[7] ^= std::byte{1};
  const Status moved = move(*replica);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, Code::kMismatch);
  StageOptions repair;
  repair.repair = true;
  ASSERT_TRUE(move(*replica, repair));
  const auto now = memory();
  load(model_);
  EXPECT_EQ(now, memory());
}

// Both names of a tie are in the version: they move together, or not at all.
TEST_F(SlotsTest, TiedTensorsMustAgree) {
  const auto tied = [&] {
    return std::ranges::find(model_.tensors, "tied", &TinyModel::Tensor::name);
  };
  model_.tensors.insert(model_.tensors.end() - 2, model_.tensors[4]);
  model_.tensors[model_.tensors.size() - 3].name = "tied";
  slots_.push_back({"tied", qkv_, {{.columns = 96 * kHidden}}});
  publish();
  load(model_);
  const auto replica = *adopt();
  model_.step(1);
  tied()->bytes = model_.tensors[4].bytes;
  publish();
  ASSERT_TRUE(move(*replica));
  const auto now = memory();
  load(model_);
  EXPECT_EQ(now, memory());
  tied()->bytes[0] ^= std::byte{1};
  publish();
  const Status moved = move(*replica);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, Code::kMismatch);
  EXPECT_NE(moved.error().message.find("'q' and 'tied' are one memory"), std::string::npos)
      << moved.error().message;
  EXPECT_EQ(now, memory());
}

// An element that lives in several places, as replicated key heads do.
TEST_F(SlotsTest, AllPlacesOfAnElementAreWritten) {
  std::vector<std::byte> again(32 * kHidden * 2);
  slots_.push_back({"k", again, {{.columns = 32 * kHidden}}});
  load(model_);
  const auto replica = *adopt();
  model_.step(1);
  publish();
  ASSERT_TRUE(move(*replica));
  const std::vector<std::byte> found = again;
  load(model_);
  EXPECT_EQ(found, again);
}

}  // namespace
}  // namespace siltstone
