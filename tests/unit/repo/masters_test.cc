// fp32 master weights published as bf16: every way of rebuilding gives exactly the rounded words,
// and publishing them is publishing what a caller had rounded by hand.
#include <gtest/gtest.h>

#include "base/bf16.h"
#include "base/bytes.h"
#include "delta/grid.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;
using test::TinyModel;

// NaNs whose payload lies high and low, both zeros, infinities, subnormals that round up, down and
// to a normal number, ties to either side, and the values around overflow.
constexpr uint32_t kPatterns[] = {0x7fc00001, 0x7f800001, 0xffbfffff, 0xffffffff, 0x00000000,
                                  0x80000000, 0x7f800000, 0xff800000, 0x00000001, 0x00008000,
                                  0x00008001, 0x80018000, 0x007fffff, 0x3f808000, 0x3f818000,
                                  0x3f807fff, 0x7f7f7fff, 0x7f7f8000, 0xff7fffff};

// A trainer's tensors as it holds them.
struct Masters {
  TinyModel held;
  std::mt19937_64 random{3};

  Masters() {
    held.tensors.clear();
    add("a.weight", DType::kF32, {40, 30});
    add("b.empty", DType::kF32, {0, 4});
    add("c.scalar", DType::kF32, {});
    add("d.ids", DType::kI64, {7});
    add("e.bf16", DType::kBF16, {19});
    add("f.run", DType::kF32, {3, 50001});
    TinyModel::Tensor& first = held.tensors.front();
    for (size_t i = 0; i < std::size(kPatterns); ++i) set(&first, i, kPatterns[i]);
  }

  void add(std::string name, DType dtype, std::vector<int64_t> shape) {
    std::vector<std::byte> bytes(*tensor_size_bytes(dtype, shape));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    held.tensors.push_back({std::move(name), dtype, std::move(shape), std::move(bytes)});
  }

  static void set(TinyModel::Tensor* tensor, size_t i, uint32_t word) {
    store_le(tensor->bytes.data() + 4 * i, word);
  }

  // Moves all masters a little, most by less than bf16 can tell, and gives some a special value.
  void step() {
    for (TinyModel::Tensor& tensor : held.tensors) {
      if (tensor.dtype != DType::kF32) continue;
      for (size_t i = 0; i < tensor.bytes.size() / 4; ++i) {
        const auto word = load_le<uint32_t>(tensor.bytes.data() + 4 * i);
        set(&tensor, i, word + static_cast<uint32_t>(random() % 800));
        if (random() % 200 == 0) set(&tensor, i, kPatterns[random() % std::size(kPatterns)]);
      }
    }
  }

  TinyModel rounded() const {
    TinyModel out = held;
    for (TinyModel::Tensor& tensor : out.tensors) {
      if (tensor.dtype != DType::kF32) continue;
      std::vector<std::byte> bytes(tensor.bytes.size() / 2);
      for (size_t i = 0; i < bytes.size() / 2; ++i) {
        const auto word = load_le<uint32_t>(tensor.bytes.data() + 4 * i);
        store_le(bytes.data() + 2 * i, bf16_of_f32(word));
      }
      tensor.dtype = DType::kBF16;
      tensor.bytes = std::move(bytes);
    }
    return out;
  }

  std::unique_ptr<Checkpoint> checkpoint() const {
    std::vector<TensorView> views;
    for (const auto& t : held.tensors) views.push_back({t.name, t.dtype, t.shape, t.bytes, {}});
    return *view_memory(std::move(views), {.f32_as_bf16 = true});
  }
};

bool holds(const RetainedBase& retained, const TinyModel& model) {
  return std::ranges::all_of(model.tensors, [&](const TinyModel::Tensor& tensor) {
    return std::ranges::equal(retained.bytes(tensor.name), tensor.bytes);
  });
}

// Whether publish finds its base in memory or in the bucket.
class PublishMasters : public ::testing::TestWithParam<bool> {};

TEST_P(PublishMasters, GivesTheRoundedWordsBack) {
  const ScratchFolder scratch;
  const auto repository = *Repository::init(std::make_shared<MemoryStore>("mem://masters"));
  const auto by_hand = *Repository::init(std::make_shared<MemoryStore>("mem://by-hand"));
  RetainedBase retained;
  PublishOptions options;
  options.threads = 2;
  if (GetParam()) options.retained = &retained;
  Masters masters;
  TinyModel live = masters.rounded();
  std::unique_ptr<Replica> replica;
  for (int step = 0; step < 6; ++step) {
    SCOPED_TRACE(step);
    const TinyModel expected = masters.rounded();
    const Result<PublishReport> report = repository->publish(*masters.checkpoint(), options);
    ASSERT_TRUE(report) << report.error().message;
    const Result<PublishReport> reference = by_hand->publish(*expected.checkpoint(), {});
    ASSERT_TRUE(reference) << reference.error().message;
    EXPECT_EQ(report->version.root, reference->version.root);
    EXPECT_EQ(report->kind, reference->kind);
    EXPECT_EQ(report->changed_elements, reference->changed_elements);
    EXPECT_EQ(report->total_bytes, reference->total_bytes);
    EXPECT_EQ(report->section_bytes, reference->section_bytes);
    EXPECT_EQ(report->kind, step > 0 ? ArtifactKind::kDelta : ArtifactKind::kAnchor);
    EXPECT_EQ(GetParam(), holds(retained, expected));

    if (step == 0) replica = *Replica::adopt(live.views(), report->version);
    auto staged = replica->stage(*repository, report->version, {});
    ASSERT_TRUE(staged) << staged.error().message;
    ASSERT_TRUE(replica->commit(*std::move(staged)).status);
    EXPECT_TRUE(live == expected);
    const fs::path out = scratch.path() / std::to_string(step);
    ASSERT_TRUE(repository->checkout(report->version, out, {}));
    EXPECT_TRUE(expected.is_in(out));
    masters.step();
  }
  VerifyOptions all;
  all.data = true;
  const Result<VerifyReport> verified = repository->verify(all);
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_TRUE(verified->problems.empty());
}

INSTANTIATE_TEST_SUITE_P(Base, PublishMasters, ::testing::Bool(), [](const auto& of) {
  return std::string(of.param ? "retained" : "from_the_bucket");
});

TEST(MasterWeights, SmallerMovesThanBf16TellsAreNoChange) {
  const auto repository = *Repository::init(std::make_shared<MemoryStore>("mem://still"));
  RetainedBase retained;
  PublishOptions options;
  options.retained = &retained;
  Masters masters;
  for (TinyModel::Tensor& tensor : masters.held.tensors) {
    if (tensor.dtype != DType::kF32) continue;
    for (size_t i = 0; i < tensor.bytes.size() / 4; ++i) Masters::set(&tensor, i, 0x3f800000);
  }
  ASSERT_TRUE(repository->publish(*masters.checkpoint(), options));
  for (TinyModel::Tensor& tensor : masters.held.tensors) {
    if (tensor.dtype != DType::kF32) continue;
    for (size_t i = 0; i < tensor.bytes.size() / 4; ++i) Masters::set(&tensor, i, 0x3f808000);
  }
  const Result<PublishReport> report = repository->publish(*masters.checkpoint(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->changed_elements, 0U);
  EXPECT_TRUE(holds(retained, masters.rounded()));
}

// More than one tile and block, at the seams of which byte offsets of the two dtypes differ most.
TEST(MasterWeights, TensorsOfSeveralTiles) {
  const auto repository = *Repository::init(std::make_shared<MemoryStore>("mem://large"));
  const auto by_hand = *Repository::init(std::make_shared<MemoryStore>("mem://by-hand"));
  RetainedBase retained;
  PublishOptions options;
  options.retained = &retained;
  options.threads = 2;
  Masters masters;
  masters.held.tensors.clear();
  masters.add("large", DType::kF32, {3001, 2003});
  ASSERT_GT(masters.rounded().tensors[0].bytes.size(), kTileBytes);
  for (int step = 0; step < 3; ++step) {
    const TinyModel expected = masters.rounded();
    const Result<PublishReport> report = repository->publish(*masters.checkpoint(), options);
    ASSERT_TRUE(report) << report.error().message;
    const Result<PublishReport> reference = by_hand->publish(*expected.checkpoint(), {});
    ASSERT_TRUE(reference) << reference.error().message;
    EXPECT_EQ(report->version.root, reference->version.root);
    EXPECT_EQ(report->changed_elements, reference->changed_elements);
    EXPECT_EQ(report->section_bytes, reference->section_bytes);
    EXPECT_TRUE(holds(retained, expected));
    masters.step();
  }
}

TEST(MasterWeights, DiffOfMemoryWithItsRoundedTwinIsEmpty) {
  Masters masters;
  const auto checkpoint = masters.checkpoint();
  const TinyModel rounded = masters.rounded();
  const Result<DiffReport> same = diff_checkpoints(*rounded.checkpoint(), *checkpoint, {});
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_TRUE(same->tensors.empty());
  EXPECT_EQ(same->from_root, same->to_root);
}

}  // namespace
}  // namespace siltstone
