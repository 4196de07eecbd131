// Sections cut in columns, as ranks of a tensor-parallel trainer would publish them: rebuilding
// gives the right words although no block of a section is contiguous in the tensor.
#include <gtest/gtest.h>

#include <random>

#include "base/checksum.h"
#include "delta/diff.h"
#include "delta/pack.h"
#include "delta/section.h"
#include "repo/chain.h"
#include "repo/objects.h"
#include "repo/rebuild.h"
#include "store/memory.h"

namespace siltstone {
namespace {

constexpr uint64_t kRows = 300;
constexpr uint64_t kCols = 512;
const TensorInfo kInfo{"w", DType::kBF16, {kRows, kCols}, kRows* kCols * 2};

class Words final : public StateBytes {
 public:
  explicit Words(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  Status read(size_t, uint64_t offset_bytes, MutByteSpan out) const override {
    std::memcpy(out.data(), bytes_.data() + offset_bytes, out.size());
    return {};
  }
  std::vector<std::byte> bytes_;
};

// The words of a tile, and its sum at its place in the tensor.
std::vector<std::byte> gather(const std::vector<std::byte>& tensor, const Tile& tile, Sum128* sum) {
  std::vector<std::byte> out;
  for (const ByteRange& range : tile_ranges(word_matrix(kInfo), tile, 0, tile.elements())) {
    const ByteSpan part = ByteSpan(tensor).subspan(range.offset, range.length);
    out.insert(out.end(), part.begin(), part.end());
    *sum += digest_bytes(part, range.offset);
  }
  return out;
}

TEST(ForeignGrid, ColumnTilesAreRebuilt) {
  std::mt19937_64 random(3);
  Words before(std::vector<std::byte>(kInfo.size_bytes));
  for (std::byte& byte : before.bytes_) byte = static_cast<std::byte>(random());
  std::vector<std::byte> after = before.bytes_;
  for (int i = 0; i < 2000; ++i) after[random() % after.size()] ^= std::byte{1};

  PackEntry entry{"w", {}};
  Artifact artifact;
  artifact.kind = ArtifactKind::kDelta;
  for (const Tile& tile :
       {Tile{0, kRows, 0, 128}, Tile{0, 100, 128, 384}, Tile{100, 200, 128, 384}}) {
    Sum128 was_sum;
    Sum128 is_sum;
    const std::vector<std::byte> was = gather(before.bytes_, tile, &was_sum);
    const std::vector<std::byte> is = gather(after, tile, &is_sum);
    ChangeList changes(2);
    changes.append(is, was);
    const TileChange change{.dtype = kInfo.dtype,
                            .elements = tile.elements(),
                            .old_words = was,
                            .new_words = is,
                            .positions = changes.positions(),
                            .run_ends = changes.run_ends(),
                            .changed_words = changes.words(),
                            .replaced_words = changes.replaced_words()};
    ASSERT_TRUE(append_section(change, tile, was_sum, is_sum, nullptr, &entry.sections));
    artifact.changed_elements += changes.changed();
  }
  const std::string prefix = pack_prefix({entry}, {{"siltstone.format", "1"},
                                                   {"siltstone.kind", "delta"},
                                                   {"siltstone.from", std::string(64, '0')}});
  std::string pack = prefix;
  pack += as_text(entry.sections);
  const std::string key = "obj/main/00000000/x/0-0.safetensors";
  const auto store = std::make_shared<MemoryStore>("mem://foreign");
  ASSERT_TRUE(store->create(key, PiecesSource({as_bytes(pack)})));
  artifact.objects.push_back({key, pack.size(), sha256_hex(as_bytes(pack)), prefix.size()});
  Commit link;
  link.artifacts.push_back(artifact);

  const std::span<const TensorInfo> tensors(&kInfo, 1);
  const Result<Chain> chain = Chain::load(store, {link}, tensors, {});
  ASSERT_TRUE(chain) << chain.error().message;
  const StateReader reader(tensors, before, &*chain);
  std::vector<std::byte> found(kInfo.size_bytes);
  const Result<Rebuilt> rebuilt =
      rebuild(reader, {0}, {}, [&](size_t, uint64_t offset, ByteSpan words, bool) -> Status {
        std::memcpy(found.data() + offset, words.data(), words.size());
        return {};
      });
  ASSERT_TRUE(rebuilt) << rebuilt.error().message;
  EXPECT_TRUE(found == after);
  EXPECT_EQ(rebuilt->after[0], digest_bytes(after, 0));

  RebuildOptions small;
  small.memory_bytes = 1024;
  EXPECT_EQ(rebuild(reader, {0}, small, [](size_t, uint64_t, ByteSpan, bool) { return Status(); })
                .error()
                .code,
            Code::kUnsupported)
      << "a tensor that must be whole in memory keeps to the budget";
}

}  // namespace
}  // namespace siltstone
