// Sections cut in columns, as ranks of a tensor-parallel trainer would publish them: rebuilding
// gives the right words although no block of a section is contiguous in the tensor.
#include <gtest/gtest.h>

#include <random>

#include "base/checksum.h"
#include "delta/diff.h"
#include "delta/pack.h"
#include "delta/section.h"
#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/committing.h"
#include "repo/keys.h"
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

// Words before and after, and the pack between them, cut in columns.
struct ColumnPack {
  std::vector<std::byte> before = std::vector<std::byte>(kInfo.size_bytes);
  std::vector<std::byte> after;
  std::string pack;
  uint64_t prefix_bytes = 0;
  uint64_t changed = 0;

  explicit ColumnPack(const std::string& from_root) {
    std::mt19937_64 random(3);
    for (std::byte& byte : before) byte = static_cast<std::byte>(random());
    after = before;
    for (int i = 0; i < 2000; ++i) after[random() % after.size()] ^= std::byte{1};
    PackEntry entry{"w", {}};
    for (const Tile& tile :
         {Tile{0, kRows, 0, 128}, Tile{0, 100, 128, 384}, Tile{100, 200, 128, 384}}) {
      add(tile, &entry.sections);
    }
    pack = pack_prefix(
        {entry},
        {{"siltstone.format", "1"}, {"siltstone.kind", "delta"}, {"siltstone.from", from_root}});
    prefix_bytes = pack.size();
    pack += as_text(entry.sections);
  }

  void add(const Tile& tile, std::vector<std::byte>* sections) {
    Sum128 was_sum;
    Sum128 is_sum;
    const std::vector<std::byte> was = gather(before, tile, &was_sum);
    const std::vector<std::byte> is = gather(after, tile, &is_sum);
    ChangeList changes(2);
    changes.append(is, was);
    const TileChange change = tile_change(kInfo.dtype, was, is, changes);
    ASSERT_TRUE(append_section(change, tile, was_sum, is_sum, nullptr, sections));
    changed += changes.changed();
  }

  Artifact artifact(const std::string& key) const {
    Artifact artifact;
    artifact.kind = ArtifactKind::kDelta;
    artifact.bytes = pack.size();
    artifact.section_bytes = pack.size() - prefix_bytes;
    artifact.changed_elements = changed;
    artifact.objects.push_back({key, pack.size(), sha256_hex(as_bytes(pack)), prefix_bytes});
    return artifact;
  }
};

TEST(ForeignGrid, ColumnTilesAreRebuilt) {
  const ColumnPack made(std::string(64, '0'));
  const Words before(made.before);
  const std::string key = "obj/main/00000000/x/0-0.safetensors";
  const auto store = std::make_shared<MemoryStore>("mem://foreign");
  ASSERT_TRUE(store->create(key, PiecesSource({as_bytes(made.pack)})));
  Commit link;
  link.artifacts.push_back(made.artifact(key));

  const std::span<const TensorInfo> tensors(&kInfo, 1);
  const Result<std::unique_ptr<const Chain>> chain = Chain::load(store, {link}, tensors, {});
  ASSERT_TRUE(chain) << chain.error().message;
  const StateReader reader(tensors, before, chain->get());
  std::vector<std::byte> found(kInfo.size_bytes);
  const Result<Rebuilt> rebuilt =
      rebuild(reader, {0}, {}, [&](size_t, uint64_t offset, ByteSpan words, bool) -> Status {
        std::memcpy(found.data() + offset, words.data(), words.size());
        return {};
      });
  ASSERT_TRUE(rebuilt) << rebuilt.error().message;
  EXPECT_TRUE(found == made.after);
  EXPECT_EQ(rebuilt->after[0], digest_bytes(made.after, 0));

  RebuildOptions small;
  small.memory_bytes = 1024;
  EXPECT_EQ(rebuild(reader, {0}, small, [](size_t, uint64_t, ByteSpan, bool) { return Status(); })
                .error()
                .code,
            Code::kUnsupported)
      << "a tensor that must be whole in memory keeps to the budget";
}

// A tensor of one tile: as many stretches whole as in the default grid.
TEST(ForeignGrid, ColumnTilesAreCompared) {
  const auto store = std::make_shared<MemoryStore>("mem://foreign");
  const std::unique_ptr<Repository> repository = *Repository::init(store);
  const ColumnPack unrooted("");
  const std::unique_ptr<Checkpoint> first =
      *view_memory({{kInfo.name, kInfo.dtype, kInfo.shape, unrooted.before, {}}});
  ASSERT_TRUE(repository->publish(*first, {}));

  History& history = as_bucket(*repository).history();
  Commit commit = *history.read("main", 0);
  commit.parent = commit.id;
  commit.id = {"main", 1, ""};
  commit.attempt = std::string(32, 'a');
  const ColumnPack made(commit.root);
  const std::string key =
      attempt_prefix("main", commit.epoch, 1, commit.attempt) + "0-0.safetensors";
  ASSERT_TRUE(store->create(key, PiecesSource({as_bytes(made.pack)})));
  commit.artifacts = {made.artifact(key)};
  commit.artifacts.front().from_root = commit.root;
  commit.root = state_root(state_rows({&kInfo, 1}, {digest_bytes(made.after, 0)}));
  commit.artifacts.front().to_root = commit.root;
  const Result<Committed> committed = create_commit(*store, commit);
  ASSERT_TRUE(committed) << committed.error().message;

  const Version from = *repository->resolve("main@0");
  const Version to = *repository->resolve("main@1");
  for (const auto& [a, b] : {std::pair(from, to), std::pair(to, from)}) {
    const Result<DiffReport> report = repository->diff(a, b, {});
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->changed_elements, made.changed);
  }
}

}  // namespace
}  // namespace siltstone
