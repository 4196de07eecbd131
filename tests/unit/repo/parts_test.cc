// Taking parts of packs: who holds some of the tensors reads the tables and its own chunks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>

#include "delta/pack.h"
#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/objects.h"
#include "repo/rebuild.h"
#include "siltstone/replica.h"
#include "store/memory.h"
#include "support/remote_store.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::RemoteStore;
using test::TinyModel;

constexpr size_t kExperts = 96;
constexpr size_t kExpertBytes = size_t{64} << 10;
constexpr size_t kLinks = 3;

// A bucket of a layer of experts: every step changes a third of the words of each, so that a delta
// is one pack of two dozen chunks. Made once.
struct Experts {
  Experts() {
    std::mt19937_64 random(5);
    last.tensors.clear();
    for (size_t i = 0; i < kExperts; ++i) {
      std::vector<std::byte> bytes(kExpertBytes);
      for (size_t at = 0; at < kExpertBytes; at += 8) store_le(bytes.data() + at, random());
      last.tensors.push_back({"experts." + std::to_string(i),
                              DType::kBF16,
                              {128, static_cast<int64_t>(kExpertBytes / 256)},
                              std::move(bytes)});
    }
    std::ranges::sort(last.tensors, {}, &TinyModel::Tensor::name);
    const auto repository = *Repository::init(memory);
    EXPECT_TRUE(repository->publish(*last.checkpoint(), {}));
    first = last;
    for (size_t i = 0; i < kLinks; ++i) {
      for (TinyModel::Tensor& tensor : last.tensors) {
        for (size_t k = 0; k < kExpertBytes / 2 * 2 / 5; ++k) {
          const uint64_t hash = random();
          tensor.bytes[hash % kExpertBytes & ~size_t{1}] ^= static_cast<std::byte>(hash >> 57);
        }
      }
      EXPECT_TRUE(repository->publish(*last.checkpoint(), {}));
      links.push_back(*as_bucket(*repository).history().read("main", i + 1));
    }
    tensors = *repository->tensors(links.back().version());
  }

  std::shared_ptr<MemoryStore> memory = std::make_shared<MemoryStore>("mem://parts");
  TinyModel first;
  TinyModel last;
  std::vector<Commit> links;
  std::vector<TensorInfo> tensors;
};

const Experts& experts() {
  static const Experts* const made = new Experts;
  return *made;
}

class PartsTest : public ::testing::Test {
 protected:
  PartsTest() {
    for (const size_t expert : {8, 9, 10, 11, 70}) here_.push_back(number_of(expert));
    std::ranges::sort(here_);
  }

  size_t number_of(size_t expert) const {
    const auto found = std::ranges::find(model_.tensors, "experts." + std::to_string(expert),
                                         &TinyModel::Tensor::name);
    return static_cast<size_t>(found - model_.tensors.begin());
  }
  Result<std::unique_ptr<const Chain>> load(ChainOptions options = {}) {
    remote_->clear();
    options.here = here_;
    return Chain::load(remote_, links_, tensors_, options);
  }
  ObjectRef& pack(size_t link) {
    Artifact& delta = links_[link].artifacts.front();
    EXPECT_EQ(delta.kind, ArtifactKind::kDelta);
    return delta.objects.front();
  }
  uint64_t pack_bytes() {
    uint64_t sum = 0;
    for (size_t i = 0; i < kLinks; ++i) sum += pack(i).length_bytes;
    return sum;
  }
  uint64_t read_bytes() const {
    uint64_t sum = 0;
    for (const RemoteStore::Request& request : remote_->requests("read")) {
      if (request.name.starts_with("obj/")) sum += request.bytes;
    }
    return sum;
  }
  // The link's pack with other bytes, under another name, which the link then promises.
  void replace_pack(size_t link, const std::function<void(std::string& bytes)>& change) {
    ObjectRef& object = pack(link);
    std::string bytes = *memory_->read_all(object.key, object.length_bytes);
    change(bytes);
    static int replaced = 0;
    object.key += "-" + std::to_string(++replaced) + ".safetensors";
    object.length_bytes = bytes.size();
    ASSERT_TRUE(memory_->create(object.key, PiecesSource({as_bytes(bytes)})));
  }
  void promise(size_t link) {
    ObjectRef& object = pack(link);
    const std::string bytes = *memory_->read_all(object.key, object.length_bytes);
    object.sha256 = sha256_hex(as_bytes(bytes));
    object.prefix_sha256 = sha256_hex(as_bytes(bytes).first(object.prefix_bytes));
  }
  // Expects the wanted tensors, and the sums of all, as they are in the last version.
  void expect_last_version(const Chain& chain) {
    const auto anchor = first_.checkpoint();
    const CheckpointBytes base(*anchor);
    TinyModel rebuilt = first_;
    const auto done = rebuild(StateReader(tensors_, base, &chain), here_, {},
                              [&](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
                                std::memcpy(rebuilt.tensors[tensor].bytes.data() + offset,
                                            words.data(), words.size());
                                return {};
                              });
    ASSERT_TRUE(done) << done.error().message;
    for (size_t t = 0; t < kExperts; ++t) {
      const Sum128 before = digest_bytes(first_.tensors[t].bytes, 0);
      EXPECT_EQ(before + chain.change(t), digest_bytes(model_.tensors[t].bytes, 0)) << t;
    }
    for (const size_t t : here_) EXPECT_EQ(rebuilt.tensors[t], model_.tensors[t]) << t;
  }

  const std::shared_ptr<MemoryStore> memory_ = experts().memory;
  const std::shared_ptr<RemoteStore> remote_ =
      std::make_shared<RemoteStore>(memory_, 4, std::chrono::microseconds(0));
  const TinyModel& first_ = experts().first;
  const TinyModel& model_ = experts().last;
  std::vector<Commit> links_ = experts().links;
  const std::vector<TensorInfo>& tensors_ = experts().tensors;
  std::vector<size_t> here_;  // numbers of tensors, which are sorted by name
};

TEST_F(PartsTest, WhoHoldsSomeTensorsReadsTheirChunks) {
  const auto chain = load();
  ASSERT_TRUE(chain) << chain.error().message;
  EXPECT_EQ(read_bytes(), (*chain)->size_bytes());
  EXPECT_LT(read_bytes(), pack_bytes() / 3);
  expect_last_version(**chain);
}

TEST_F(PartsTest, ExpertsLieInTheOrderOfTheirNumbers) {
  const std::string bytes = *memory_->read_all(pack(0).key, pack(0).length_bytes);
  const auto index = *parse_pack_index(as_bytes(bytes), bytes.size());
  ASSERT_EQ(index.entries.size(), kExperts);
  for (size_t i = 0; i < kExperts; ++i)
    EXPECT_EQ(index.entries[i].tensor, "experts." + std::to_string(i));
}

TEST_F(PartsTest, WhoHoldsNoneReadsTheTables) {
  here_.clear();
  const auto chain = load();
  ASSERT_TRUE(chain) << chain.error().message;
  uint64_t heads = 0;
  for (size_t i = 0; i < kLinks; ++i) heads += pack(i).prefix_bytes;
  EXPECT_EQ(read_bytes(), heads);
  expect_last_version(**chain);
}

TEST_F(PartsTest, WhoHoldsMostReadsAll) {
  for (size_t t = 0; t < kExperts; t += 2) here_.push_back(t);
  std::ranges::sort(here_);
  here_.erase(std::ranges::unique(here_).begin(), here_.end());
  const auto chain = load();
  ASSERT_TRUE(chain) << chain.error().message;
  EXPECT_EQ((*chain)->size_bytes(), pack_bytes());
  expect_last_version(**chain);
}

TEST_F(PartsTest, PacksWithoutTablesAreReadWhole) {
  for (size_t i = 0; i < kLinks; i += 2) pack(i).prefix_sha256.clear();
  const auto chain = load();
  ASSERT_TRUE(chain) << chain.error().message;
  EXPECT_GT((*chain)->size_bytes(), pack(0).length_bytes + pack(2).length_bytes);
  EXPECT_LT((*chain)->size_bytes(), pack_bytes());
  expect_last_version(**chain);
}

TEST_F(PartsTest, PartsThatDoNotFitInMemoryAreReadOnceMore) {
  const uint64_t wanted = (*load())->size_bytes();
  const auto chain = load({.memory_bytes = wanted * 7 / 10});
  ASSERT_TRUE(chain) << chain.error().message;
  EXPECT_EQ((*chain)->size_bytes(), wanted);
  const uint64_t before = read_bytes();
  expect_last_version(**chain);
  EXPECT_GT(read_bytes(), before);
}

TEST_F(PartsTest, PartsArriveBesideWholePacks) {
  pack(1).prefix_sha256.clear();
  for (const uint64_t memory : {pack_bytes(), pack_bytes() / 2, pack(0).length_bytes / 2}) {
    const auto chain = load({.memory_bytes = memory, .overlap_bytes = 0});
    ASSERT_TRUE(chain) << chain.error().message;
    expect_last_version(**chain);
    EXPECT_LT((*chain)->size_bytes(), pack_bytes());
  }
}

TEST_F(PartsTest, DamageInAWantedChunkIsFound) {
  replace_pack(1, [](std::string& bytes) {
    const auto index = *parse_pack_index(as_bytes(bytes), bytes.size());
    const auto entry = std::ranges::find(index.entries, "experts.70", &PackIndexEntry::tensor);
    bytes[entry->offset_bytes + 50] ^= 1;
  });
  const auto chain = load();
  ASSERT_FALSE(chain);
  EXPECT_EQ(chain.error().code, Code::kCorrupt);
  EXPECT_NE(chain.error().message.find(pack(1).key), std::string::npos) << chain.error().message;
  std::erase(here_, number_of(70));
  EXPECT_TRUE(load()) << "nobody reads what is damaged";
}

TEST_F(PartsTest, AHeaderIsProvenBeforeItIsBelieved) {
  replace_pack(0, [](std::string& bytes) { bytes[bytes.find("siltstone.chunks") + 20] ^= 1; });
  for (const bool whole : {false, true}) {
    if (whole) {
      for (size_t t = 0; t < kExperts; ++t) here_.push_back(t);
    }
    const auto chain = load();
    ASSERT_FALSE(chain);
    EXPECT_EQ(chain.error().code, Code::kCorrupt) << chain.error().message;
  }
}

// A publisher that lies about what it leaves out is caught by whoever reads all, and by the root.
TEST_F(PartsTest, TablesThatLieAreFound) {
  const auto lie = [&](const char* key) {
    replace_pack(2, [&](std::string& bytes) {
      char& digit = bytes[bytes.find(key) + std::strlen(key) + 3];
      digit = digit == '1' ? '2' : '1';
    });
    promise(2);
  };
  lie("siltstone.sums");
  const auto part = load();
  ASSERT_TRUE(part) << part.error().message;
  const Sum128 before = digest_bytes(first_.tensors[0].bytes, 0);
  EXPECT_NE(before + (*part)->change(0), digest_bytes(model_.tensors[0].bytes, 0));
  auto whole = Chain::load(remote_, links_, tensors_, {});
  ASSERT_FALSE(whole);
  EXPECT_EQ(whole.error().code, Code::kCorrupt);

  links_[2] = experts().links[2];
  lie("siltstone.chunks");
  EXPECT_TRUE(Chain::load(remote_, links_, tensors_, {})) << "its objects are right";
  whole = Chain::load(remote_, links_, tensors_, {.prove_chunks = true});
  ASSERT_FALSE(whole);
  EXPECT_EQ(whole.error().code, Code::kCorrupt);
  links_[2] = experts().links[2];
  EXPECT_TRUE(Chain::load(remote_, links_, tensors_, {.prove_chunks = true}));
}

TEST_F(PartsTest, DigestsAreReadFromTablesAlone) {
  const auto repository = *Repository::open(remote_);
  const Version last = *repository->head("main");
  remote_->clear();
  const auto digests = repository->digests(last);
  ASSERT_TRUE(digests) << digests.error().message;
  for (size_t t = 0; t < kExperts; ++t)
    EXPECT_EQ((*digests)[t], to_hex(digest_bytes(model_.tensors[t].bytes, 0)));
  EXPECT_LT(read_bytes(), pack_bytes() / 20);
}

// The packs of an anchor tell sums alone: whoever wants words of them reads them whole.
TEST_F(PartsTest, PacksOfAnchorsTellSumsAlone) {
  const auto packed = *Repository::init(std::make_shared<MemoryStore>("mem://packed"));
  PublishOptions options;
  options.pack_anchors = true;
  ASSERT_TRUE(packed->publish(*model_.checkpoint(), options));
  const Commit anchor = **as_bucket(*packed).history().head("main");
  const Artifact& artifact = anchor.artifacts.front();
  ASSERT_TRUE(artifact.packed);
  const auto remote =
      std::make_shared<RemoteStore>(as_bucket(*packed).store(), 4, std::chrono::microseconds(0));
  uint64_t heads = 0;
  for (const ObjectRef& object : artifact.objects) heads += object.prefix_bytes;
  const auto chain_for = [&](std::vector<size_t> here) {
    return *Chain::load(remote, {}, tensors_, {.here = std::move(here)}, &anchor);
  };
  EXPECT_EQ(chain_for({})->size_bytes(), heads);
  EXPECT_EQ(chain_for({3})->size_bytes(), artifact.bytes);
  const auto digests = *packed->digests(anchor.version());
  for (size_t t = 0; t < kExperts; ++t)
    EXPECT_EQ(digests[t], to_hex(digest_bytes(model_.tensors[t].bytes, 0)));
}

TEST_F(PartsTest, ARankFetchesWhatItHas) {
  const auto repository = *Repository::open(remote_);
  TinyModel held = first_;
  std::vector<Slot> slots;
  for (const size_t t : here_) {
    TinyModel::Tensor& tensor = held.tensors[t];
    slots.push_back({tensor.name, tensor.bytes, {{.columns = kExpertBytes / 2}}});
  }
  const auto replica = Replica::adopt_share(*repository, slots, *repository->resolve("main@0"));
  ASSERT_TRUE(replica) << replica.error().message;
  remote_->clear();
  auto staged = (*replica)->stage(*repository, *repository->head("main"), {});
  ASSERT_TRUE(staged) << staged.error().message;
  EXPECT_LT((*staged)->bytes_fetched(), pack_bytes() / 3);
  EXPECT_EQ(read_bytes(), (*staged)->bytes_fetched());
  EXPECT_TRUE((*replica)->commit(*std::move(staged)).status);
  for (const size_t t : here_) EXPECT_EQ(held.tensors[t], model_.tensors[t]);
}

}  // namespace
}  // namespace siltstone
