// Chains of deltas that are staged while their packs still arrive.
#include "repo/chain.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>

#include "repo/bucket.h"
#include "repo/rebuild.h"
#include "siltstone/replica.h"
#include "store/memory.h"
#include "support/remote_store.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::RemoteStore;
using test::ScratchFolder;
using test::TinyModel;

constexpr size_t kLinks = 3;
constexpr size_t kPacks = 3;     // of each link: `scalar` is with `mask`
constexpr uint64_t kAlways = 0;  // of Tuning::overlap_bytes
constexpr uint64_t kNever = UINT64_MAX;

// A bucket whose deltas have several packs each.
class ArrivingChain : public ::testing::Test {
 protected:
  ArrivingChain() {
    // Never changed, and so large that chains stay cheaper than anchors.
    const std::vector<std::byte> frozen(uint64_t{512} << 10, std::byte{7});
    model_.tensors.insert(model_.tensors.begin() + 1,
                          {"frozen", DType::kBF16, {256, 1024}, frozen});
    const auto local = *Repository::init(memory_);
    as_bucket(*local).tuning.pack_bytes = 64;
    as_bucket(*local).tuning.batch_bytes = 64;
    EXPECT_TRUE(local->publish(*model_.checkpoint(), {}));
    first_ = model_;
    std::mt19937_64 random(3);
    for (size_t i = 0; i < kLinks; ++i) {
      model_.step(i);
      model_.tensors[1].bytes = frozen;
      for (std::byte& byte : model_.tensors.back().bytes) byte ^= static_cast<std::byte>(random());
      EXPECT_TRUE(local->publish(*model_.checkpoint(), {}));
    }
    for (size_t i = 1; i <= kLinks; ++i)
      links_.push_back(*as_bucket(*local).history().read("main", i));
    tensors_ = *local->tensors(links_.back().version());
    for (const Commit& link : links_) {
      for (const ObjectRef& object : link.find(ArtifactKind::kDelta)->objects)
        packs_.push_back(object);
    }
    EXPECT_EQ(packs_.size(), kLinks * kPacks);
  }

  std::unique_ptr<Repository> open(uint64_t overlap_bytes) {
    auto repository = *Repository::open(remote_);
    as_bucket(*repository).tuning.overlap_bytes = overlap_bytes;
    return repository;
  }
  Result<std::unique_ptr<const Chain>> load() {
    return Chain::load(remote_, links_, tensors_, {.overlap_bytes = kAlways});
  }
  uint64_t total_pack_bytes() const {
    uint64_t bytes = 0;
    for (const ObjectRef& pack : packs_) bytes += pack.length_bytes;
    return bytes;
  }
  // What a replica of the first version comes to.
  Status stage_from_first(uint64_t overlap_bytes, TinyModel* held,
                          const StageOptions& options = {}) {
    const auto repository = open(overlap_bytes);
    *held = first_;
    auto replica = *Replica::adopt(held->views(), *repository->resolve("main@0"));
    auto staged = replica->stage(*repository, *repository->head("main"), options);
    if (!staged) return std::move(staged).error();
    return replica->commit(*std::move(staged)).status;
  }

  std::shared_ptr<MemoryStore> memory_ = std::make_shared<MemoryStore>("mem://chain");
  std::shared_ptr<RemoteStore> remote_ =
      std::make_shared<RemoteStore>(memory_, 4, std::chrono::microseconds(0));
  TinyModel model_;
  TinyModel first_;
  std::vector<Commit> links_;
  std::vector<TensorInfo> tensors_;
  std::vector<ObjectRef> packs_;
};

// Nothing of the last tensor arrives before a block of another one was handed on.
TEST_F(ArrivingChain, TensorsAreRebuiltWhileOthersArrive) {
  std::set<std::string> late;
  for (const Commit& link : links_)
    late.insert(link.find(ArtifactKind::kDelta)->objects.back().key);
  std::mutex mutex;
  std::condition_variable moved;
  bool rebuilt_one = false;
  std::set<std::string> seen;
  remote_->on_read = [&](std::string_view name, uint64_t, std::span<std::byte>) -> Status {
    std::unique_lock lock(mutex);
    const bool head = seen.insert(std::string(name)).second;
    if (head || !late.contains(std::string(name))) return {};
    if (moved.wait_for(lock, std::chrono::seconds(20), [&] { return rebuilt_one; })) return {};
    return Error{Code::kUnavailable, "nothing was rebuilt meanwhile"};
  };
  const auto chain = load();
  ASSERT_TRUE(chain) << chain.error().message;
  const auto anchor = first_.checkpoint();
  const CheckpointBytes base(*anchor);
  const StateReader reader(tensors_, base, chain->get());
  TinyModel rebuilt = first_;
  const auto done = rebuild(reader, {0, 1, 2, 3, 4}, {},
                            [&](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
                              const std::lock_guard lock(mutex);
                              std::memcpy(rebuilt.tensors[tensor].bytes.data() + offset,
                                          words.data(), words.size());
                              rebuilt_one = rebuilt_one || tensor != 1;
                              moved.notify_all();
                              return {};
                            });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(rebuilt, model_);
}

// One link's packs beside the other's, tensor by tensor; heads once, then each pack once.
TEST_F(ArrivingChain, PacksComeInTheOrderOfTheirTensors) {
  const auto one_by_one = std::make_shared<RemoteStore>(memory_, 1, std::chrono::microseconds(0));
  const auto chain = *Chain::load(one_by_one, links_, tensors_, {.overlap_bytes = kAlways});
  size_t known = 0;
  for (;;) {
    const auto more = *chain->arrived(known);
    if (more.empty()) break;
    known += more.size();
  }
  EXPECT_EQ(known, tensors_.size());
  const auto requests = one_by_one->requests("read");
  ASSERT_EQ(requests.size(), 2 * packs_.size());
  for (size_t i = 0; i < packs_.size(); ++i) {
    EXPECT_EQ(requests[i].name, packs_[i].key);
    EXPECT_EQ(requests[i].bytes, packs_[i].prefix_bytes);
    const size_t link = i % kLinks;
    EXPECT_EQ(requests[packs_.size() + i].name, packs_[link * kPacks + i / kLinks].key);
  }
}

TEST_F(ArrivingChain, SmallChainsAndLocalOnesCostNoMoreRequests) {
  for (const std::shared_ptr<Store>& store :
       {std::shared_ptr<Store>(memory_), std::shared_ptr<Store>(remote_)}) {
    remote_->clear();
    const auto chain = Chain::load(store, links_, tensors_, {.overlap_bytes = total_pack_bytes()});
    ASSERT_TRUE(chain);
    EXPECT_EQ(remote_->count(), store == memory_ ? 0 : packs_.size());
    EXPECT_EQ((*chain)->arrived(0)->size(), tensors_.size());
    EXPECT_TRUE((*chain)->arrived(tensors_.size())->empty());
  }
}

TEST_F(ArrivingChain, EverybodyGetsTheSameWords) {
  for (const uint64_t overlap : {kAlways, kNever}) {
    TinyModel held;
    const Status staged = stage_from_first(overlap, &held);
    ASSERT_TRUE(staged) << staged.error().message;
    EXPECT_EQ(held, model_);
    const auto repository = open(overlap);
    TinyModel loaded = first_;
    ASSERT_TRUE(repository->load(*repository->head("main"), loaded.views(), {}));
    EXPECT_EQ(loaded, model_);
    const ScratchFolder scratch;
    auto replica = *Replica::open(scratch.path() / "replica", *repository);
    for (const char* version : {"main@0", "main@3"}) {
      auto change = replica->stage(*repository, *repository->resolve(version), {});
      ASSERT_TRUE(change) << change.error().message;
      ASSERT_TRUE(replica->commit(*std::move(change)).status);
    }
    EXPECT_TRUE(model_.is_in(scratch.path() / "replica"));
    VerifyOptions verify;
    verify.data = true;
    EXPECT_TRUE(repository->verify(verify)->problems.empty());
  }
}

// Sections of packs that do not stay in memory are read again, once their tensor is here.
TEST_F(ArrivingChain, PacksBeyondTheMemoryArriveToo) {
  const auto chain = *Chain::load(remote_, links_, tensors_,
                                  {.memory_bytes = total_pack_bytes() / 2, .overlap_bytes = 0});
  EXPECT_EQ(chain->transfers(), 4U);
  TinyModel loaded = first_;
  LoadOptions options;
  options.memory_bytes = 4 * (total_pack_bytes() / 2);
  const auto repository = open(kAlways);
  remote_->clear();
  const auto report = repository->load(*repository->head("main"), loaded.views(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(loaded, model_);
  EXPECT_GT(remote_->count("read"), 2 * packs_.size());
}

// Every byte of every pack: an error that names it, and a replica that is as it was.
TEST_F(ArrivingChain, DamageIsNoticedAndNothingIsApplied) {
  for (const ObjectRef& pack : packs_) {
    const std::string content = *memory_->read_all(pack.key, pack.length_bytes);
    for (size_t at = 0; at < content.size(); at += 1 + content.size() / 61) {
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ 16);
      ASSERT_TRUE(memory_->replace(pack.key, as_bytes(damaged)));
      TinyModel held;
      const Status staged = stage_from_first(kAlways, &held);
      ASSERT_FALSE(staged) << pack.key << " byte " << at;
      EXPECT_EQ(staged.error().code, Code::kCorrupt) << staged.error().message;
      EXPECT_NE(staged.error().message.find(pack.key), std::string::npos) << staged.error().message;
      EXPECT_EQ(held, first_);
    }
    ASSERT_TRUE(memory_->replace(pack.key, as_bytes(content)));
  }
}

// A head is believed before its pack is proven: what it said must be what is proven.
TEST_F(ArrivingChain, AHeadThatIsNotItsPacksIsNoticed) {
  std::atomic<bool> lied{false};
  remote_->on_read = [&](std::string_view name, uint64_t, std::span<std::byte> out) -> Status {
    if (name != packs_[0].key || lied.exchange(true)) return {};
    const std::string_view head(reinterpret_cast<const char*>(out.data()), out.size());
    const size_t place = head.find("bias");
    EXPECT_NE(place, std::string_view::npos);
    std::memcpy(out.data() + place, "mask", 4);
    return {};
  };
  TinyModel held;
  const Status staged = stage_from_first(kAlways, &held);
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kCorrupt) << staged.error().message;
  EXPECT_NE(staged.error().message.find(packs_[0].key), std::string::npos);
  EXPECT_EQ(held, first_);
}

TEST_F(ArrivingChain, AFailureEndsTheFetchAndTheCaller) {
  std::atomic<int> reads{0};
  remote_->on_read = [&](std::string_view, uint64_t, std::span<std::byte>) -> Status {
    if (++reads <= static_cast<int>(packs_.size()) + 2) return {};
    return Error{Code::kUnavailable, "the network is gone"};
  };
  TinyModel held;
  Status staged = stage_from_first(kAlways, &held);
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kUnavailable);
  EXPECT_EQ(held, first_);

  remote_->on_read = nullptr;
  StageOptions cancelled;
  cancelled.progress = [](uint64_t done, uint64_t) { return done == 0; };
  staged = stage_from_first(kAlways, &held, cancelled);
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code, Code::kCancelled);
  EXPECT_EQ(held, first_);

  const auto chain = load();  // and nobody asks for it
  ASSERT_TRUE(chain);
}

TEST_F(ArrivingChain, ProgressEndsWithAllThatWasExpected) {
  for (const uint64_t overlap : {kAlways, kNever}) {
    std::mutex mutex;
    uint64_t most = 0;
    uint64_t total = 0;
    StageOptions options;
    options.progress = [&](uint64_t done, uint64_t of) {
      const std::lock_guard lock(mutex);
      most = std::max(most, done);
      total = of;
      return true;
    };
    TinyModel held;
    ASSERT_TRUE(stage_from_first(overlap, &held, options));
    uint64_t expected = total_pack_bytes();
    for (const TensorInfo& tensor : tensors_) expected += tensor.size_bytes;
    EXPECT_EQ(total, expected);
    EXPECT_EQ(most, expected);
  }
}

}  // namespace
}  // namespace siltstone
