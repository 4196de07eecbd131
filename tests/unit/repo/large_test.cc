// Positions beyond 2^31: a tensor of two gigabytes that exists nowhere, only its ends differ.
#include <gtest/gtest.h>

#include "repo/chain.h"
#include "repo/delta_writer.h"
#include "repo/rebuild.h"
#include "store/memory.h"

namespace siltstone {
namespace {

constexpr uint64_t kElements = (uint64_t{1} << 31) + 70'000;
constexpr uint64_t kChanged[] = {0, 1, (uint64_t{1} << 31) - 1, uint64_t{1} << 31, kElements - 1};

// Zeros, or ones at the changed places.
class Sparse final : public StateBytes {
 public:
  explicit Sparse(bool changed) : changed_(changed) {}
  Status read(size_t, uint64_t offset_bytes, MutByteSpan out) const override {
    std::memset(out.data(), 0, out.size());
    for (const uint64_t at : kChanged) {
      if (changed_ && at >= offset_bytes && at - offset_bytes < out.size()) {
        out[at - offset_bytes] = std::byte{1};
      }
    }
    return {};
  }

 private:
  bool changed_;
};

TEST(LargeTensor, ChangesBeyond31BitsTravel) {
  const TensorInfo info{"huge", DType::kU8, {static_cast<int64_t>(kElements)}, kElements};
  const std::span<const TensorInfo> tensors(&info, 1);
  const auto store = std::make_shared<MemoryStore>("mem://large");
  const Sparse before(false);
  const Sparse after(true);
  const StateReader reader(tensors, before, nullptr);
  DeltaOptions options;
  options.key_prefix = "obj/main/00000000/x/";
  options.from_root = std::string(64, '0');
  options.packs.pack_bytes = options.batch_bytes = uint64_t{128} << 20;
  options.memory_bytes = uint64_t{1} << 30;
  Uploads uploads(*store, 0);
  const Result<DeltaOutcome> outcome = write_delta(*store, uploads, reader, before, after, options);
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->artifact.changed_elements, std::size(kChanged));
  EXPECT_LT(outcome->artifact.bytes, 4096U);

  Commit link;
  link.artifacts.push_back(outcome->artifact);
  const Result<std::unique_ptr<const Chain>> chain = Chain::load(store, {link}, tensors, {});
  ASSERT_TRUE(chain) << chain.error().message;
  const StateReader rebuilt(tensors, before, chain->get());
  const Result<Rebuilt> sums = rebuild(
      rebuilt, {0}, {}, [&](size_t, uint64_t offset, ByteSpan words, bool changed) -> Status {
        if (!changed) return {};
        std::vector<std::byte> expected(words.size());
        (void)after.read(0, offset, expected);
        EXPECT_TRUE(std::ranges::equal(words, expected)) << "block at " << offset;
        return {};
      });
  ASSERT_TRUE(sums) << sums.error().message;
  EXPECT_EQ(sums->after[0], outcome->sums_after[0]);
}

}  // namespace
}  // namespace siltstone
