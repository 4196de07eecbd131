// Versions coded by how the version before moved the words: who can read them from where, and that
// nobody who cannot is led astray.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "delta/section.h"
#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/committing.h"
#include "repo/plan.h"
#include "repo/way_back.h"
#include "siltstone/inspect.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;
using test::TinyModel;

class MomentumTest : public ::testing::Test {
 protected:
  // Large enough that anchors are rare.
  MomentumTest() : repository_(*Repository::init(store_)) {
    std::mt19937_64 random(9);
    std::vector<std::byte> bytes(size_t{2} * 300 * 200);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    model_.tensors.push_back({"wide", DType::kBF16, {300, 200}, std::move(bytes)});
  }

  void step() {
    std::mt19937_64 random(++steps_);
    for (TinyModel::Tensor& tensor : model_.tensors) {
      for (size_t i = 0; i < tensor.bytes.size() / 400 + 1; ++i)
        tensor.bytes[random() % tensor.bytes.size()] ^= static_cast<std::byte>(1 << random() % 8);
    }
  }

  PublishOptions options() {
    PublishOptions out;
    out.momentum = true;
    out.codec = "momentum";
    out.retained = &retained_;
    return out;
  }
  void publish(const PublishOptions& options) {
    step();
    const Result<PublishReport> report = repository_->publish(*model_.checkpoint(), options);
    ASSERT_TRUE(report) << report.error().message;
    models_.push_back(model_);
    versions_.push_back(report->version);
  }
  void publish(int count) {
    for (int i = 0; i < count; ++i) publish(options());
  }

  Artifact delta(size_t version) {
    const Commit commit = *as_bucket(*repository_).history().read(versions_[version].id);
    const Artifact* delta = commit.find(ArtifactKind::kDelta);
    return delta == nullptr ? Artifact() : *delta;
  }
  bool looks_back(size_t version) { return !delta(version).earlier_root.empty(); }
  uint64_t anchor_bytes() {
    const Commit first = *as_bucket(*repository_).history().read(versions_[0].id);
    return first.find(ArtifactKind::kAnchor)->bytes;
  }

  // Stages and commits; returns the bytes that were fetched.
  uint64_t move(Replica& replica, size_t to) {
    Result<std::unique_ptr<Staged>> staged = replica.stage(*repository_, versions_[to], {});
    EXPECT_TRUE(staged) << staged.error().message;
    if (!staged) return 0;
    const uint64_t fetched = (*staged)->bytes_fetched();
    const CommitReport report = replica.commit(*std::move(staged));
    EXPECT_TRUE(report.status) << report.status.error().message;
    return fetched;
  }

  void expect_everything_rebuilds() {
    VerifyOptions verify;
    verify.data = true;
    const Result<VerifyReport> verified = repository_->verify(verify);
    ASSERT_TRUE(verified) << verified.error().message;
    EXPECT_TRUE(verified->problems.empty()) << verified->problems.front();
    for (size_t i = 0; i < versions_.size(); ++i) {
      SCOPED_TRACE(i);
      const ScratchFolder scratch;
      const auto report = repository_->checkout(versions_[i], scratch.path() / "model", {});
      ASSERT_TRUE(report) << report.error().message;
      EXPECT_TRUE(models_[i].is_in(scratch.path() / "model"));
    }
  }

  std::shared_ptr<MemoryStore> store_ = std::make_shared<MemoryStore>("mem://momentum");
  std::unique_ptr<Repository> repository_;
  RetainedBase retained_;
  TinyModel model_;
  std::vector<TinyModel> models_;
  std::vector<Version> versions_;
  uint64_t steps_ = 0;
};

fs::path way_back_in(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("way-back-")) return entry.path();
  return {};
}

TEST_F(MomentumTest, DeltasLookBackFromTheSecondOn) {
  publish(5);
  EXPECT_FALSE(looks_back(1)) << "nothing came before the first version";
  for (size_t i = 2; i < 5; ++i) {
    EXPECT_EQ(delta(i).earlier_root, versions_[i - 2].root);
    const Result<Inspection> inspection = inspect(*repository_, versions_[i], {});
    ASSERT_TRUE(inspection) << inspection.error().message;
    ASSERT_EQ(inspection->codecs.size(), 1U);
    EXPECT_EQ(inspection->codecs[0].codec, "momentum");
  }
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, NoDeltaLooksBackWithoutBeingAsked) {
  PublishOptions plain = options();
  plain.momentum = false;
  for (int i = 0; i < 4; ++i) publish(plain);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_FALSE(looks_back(i));
    EXPECT_FALSE(delta(i).momentum);
  }
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, NoDeltaLooksBackPastAnAnchor) {
  as_bucket(*repository_).tuning.path_objects = 3;
  publish(12);
  History& history = as_bucket(*repository_).history();
  size_t anchors = 0;
  for (size_t i = 1; i < versions_.size(); ++i) {
    const bool after_anchor =
        history.read(versions_[i - 1].id)->find(ArtifactKind::kAnchor) != nullptr;
    anchors += after_anchor ? 1 : 0;
    EXPECT_EQ(looks_back(i), !after_anchor) << i;
  }
  EXPECT_GE(anchors, 3U);
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, APublisherThatForgotGoesOnWithoutLookingBack) {
  publish(3);
  retained_ = RetainedBase();
  publish(3);
  EXPECT_FALSE(looks_back(3));
  EXPECT_TRUE(looks_back(4));
  PublishOptions nowhere = options();
  nowhere.retained = nullptr;
  publish(nowhere);
  publish(nowhere);
  EXPECT_FALSE(delta(7).momentum) << "there is nowhere to keep the way back";
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, OthersMayPublishInBetween) {
  publish(3);
  PublishOptions other = options();
  other.retained = nullptr;
  other.momentum = false;
  const auto again = *Repository::open(store_);
  step();
  const auto report = again->publish(*model_.checkpoint(), other);
  ASSERT_TRUE(report);
  models_.push_back(model_);
  versions_.push_back(report->version);
  EXPECT_FALSE(repository_->publish(*model_.checkpoint(), options())) << "taken over";
  publish(3);
  EXPECT_FALSE(looks_back(4));
  EXPECT_TRUE(looks_back(6));
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, AStateWithTwoPastsIsNotLookedBackFromTheOther) {
  publish(3);
  // A branch that comes to the same words from elsewhere, by a publisher of its own.
  ASSERT_TRUE(repository_->branch("side", versions_[0]));
  RetainedBase other;
  PublishOptions side = options();
  side.branch = "side";
  side.retained = &other;
  TinyModel elsewhere = models_[0];
  elsewhere.step(77);
  ASSERT_TRUE(repository_->publish(*elsewhere.checkpoint(), side));
  const auto joined = repository_->publish(*models_[2].checkpoint(), side);
  ASSERT_TRUE(joined);
  ASSERT_EQ(joined->version.root, versions_[2].root);
  // Whoever holds these words from main goes on on the side.
  side.retained = &retained_;
  const auto again = *Repository::open(store_);
  step();
  const auto report = again->publish(*model_.checkpoint(), side);
  ASSERT_TRUE(report) << report.error().message;
  const ScratchFolder scratch;
  const auto out = again->checkout(report->version, scratch.path() / "model", {});
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_TRUE(model_.is_in(scratch.path() / "model"));
}

TEST_F(MomentumTest, TheCacheOnDiskKeepsTheWayBack) {
  const ScratchFolder scratch;
  PublishOptions cached = options();
  cached.retained = nullptr;
  cached.cache = scratch.path() / "cache";
  for (size_t i = 0; i < 5; ++i) {
    step();
    models_.push_back(model_);
    // Files, as a trainer writes them: a version's own words in a folder of its own.
    const auto writer =
        *Repository::init(std::make_shared<MemoryStore>("mem://" + std::to_string(i)));
    const fs::path folder = scratch.path() / std::to_string(i);
    ASSERT_TRUE(writer->checkout(writer->publish(*model_.checkpoint(), {})->version, folder, {}));
    const auto publisher = *Repository::open(store_);
    const auto report = publisher->publish(**open_checkpoint(folder), cached);
    ASSERT_TRUE(report) << report.error().message;
    versions_.push_back(report->version);
    EXPECT_EQ(looks_back(i), i >= 2) << report->base;
  }
  const fs::path folder = cached.cache / repository_->info().repo_id / "main";
  ASSERT_FALSE(way_back_in(folder).empty());
  // Damaged, it is of no use, and nothing else depends on it.
  std::ofstream(way_back_in(folder) / "obj/0.safetensors", std::ios::binary) << "nothing";
  const auto report =
      (*Repository::open(store_))->publish(**open_checkpoint(scratch.path() / "0"), cached);
  ASSERT_TRUE(report) << report.error().message;
  versions_.push_back(report->version);
  models_.push_back(models_[0]);
  EXPECT_EQ(report->kind, ArtifactKind::kDelta);
  EXPECT_FALSE(looks_back(5));
  size_t left = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    left += entry.path().filename().string().starts_with("way-back-") ? 1 : 0;
  EXPECT_EQ(left, 1U) << "only that of the newest version is kept";
  expect_everything_rebuilds();
}

TEST_F(MomentumTest, AMemoryReplicaFollows) {
  publish(8);
  TinyModel live = models_[0];
  const auto replica = *Replica::adopt(live.views(), versions_[0]);
  for (const size_t to : {1, 2, 3, 5, 7}) {
    EXPECT_LT(move(*replica, to), anchor_bytes()) << to;
    EXPECT_EQ(live, models_[to]);
  }
}

TEST_F(MomentumTest, AMemoryReplicaThatEntersLateFetchesAnAnchorOnce) {
  publish(6);
  TinyModel live = models_[3];
  const auto replica = *Replica::adopt(live.views(), versions_[3]);
  EXPECT_GT(move(*replica, 4), anchor_bytes());
  EXPECT_EQ(live, models_[4]);
  EXPECT_LT(move(*replica, 5), anchor_bytes());
  EXPECT_EQ(live, models_[5]);
}

TEST_F(MomentumTest, AFolderFollowsFromProcessToProcess) {
  publish(7);
  const ScratchFolder scratch;
  const fs::path folder = scratch.path() / "replica";
  for (const size_t to : {1, 2, 3, 6}) {
    const auto replica = *Replica::open(folder, *repository_);
    const uint64_t fetched = move(*replica, to);
    if (to > 1) {
      EXPECT_LT(fetched, anchor_bytes()) << to;
    }
    EXPECT_TRUE(models_[to].is_in(folder));
    ASSERT_FALSE(way_back_in(folder / ".siltstone").empty());
    EXPECT_TRUE(find_way_back(folder / ".siltstone", versions_[to].root));
  }
}

TEST_F(MomentumTest, AFolderWithoutItsWayBackFetchesAnAnchor) {
  publish(5);
  for (const std::string damage : {"removed", "record", "pack"}) {
    SCOPED_TRACE(damage);
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "replica";
    move(**Replica::open(folder, *repository_), 3);
    const fs::path way = way_back_in(folder / ".siltstone");
    ASSERT_FALSE(way.empty());
    if (damage == "removed") fs::remove_all(way);
    if (damage == "record") std::ofstream(way / "record.json", std::ios::app) << " ";
    if (damage == "pack") std::ofstream(way / "obj/0.safetensors", std::ios::app) << "x";
    const auto replica = *Replica::open(folder, *repository_);
    EXPECT_GT(move(*replica, 4), anchor_bytes());
    EXPECT_TRUE(models_[4].is_in(folder));
  }
}

// The words it leads back to are proven: another version's way back leads nowhere.
TEST_F(MomentumTest, AWayBackOfAnotherVersionIsNotTaken) {
  publish(5);
  const ScratchFolder scratch;
  const fs::path a = scratch.path() / "a";
  const fs::path b = scratch.path() / "b";
  move(**Replica::open(a, *repository_), 3);
  move(**Replica::open(b, *repository_), 2);
  fs::remove_all(way_back_in(a / ".siltstone"));
  fs::rename(way_back_in(b / ".siltstone"), a / ".siltstone/way-back-x");
  EXPECT_FALSE(find_way_back(a / ".siltstone", versions_[3].root));
  EXPECT_GT(move(**Replica::open(a, *repository_), 4), anchor_bytes());
  EXPECT_TRUE(models_[4].is_in(a));
}

TEST_F(MomentumTest, ADeltaThatLooksBackIsNoFirstLink) {
  publish(6);
  History& history = as_bucket(*repository_).history();
  const Commit target = *history.read(versions_[5].id);
  for (size_t from = 0; from < 5; ++from) {
    const Result<Path> unknown = plan_path(history, target, KnownRoots{versions_[from].root, {}});
    ASSERT_TRUE(unknown);
    EXPECT_EQ(unknown->anchor.has_value(), from > 0) << from;
    EXPECT_EQ(unknown->earlier_root(), "");
    if (from == 0) continue;
    const Result<Path> known =
        plan_path(history, target, KnownRoots{versions_[from].root, versions_[from - 1].root});
    ASSERT_TRUE(known);
    EXPECT_FALSE(known->anchor);
    EXPECT_EQ(known->links.size(), 5 - from);
    EXPECT_EQ(known->earlier_root(), versions_[from - 1].root);
    const Result<Path> wrong =
        plan_path(history, target, KnownRoots{versions_[from].root, versions_[5].root});
    ASSERT_TRUE(wrong);
    EXPECT_TRUE(wrong->anchor) << "another version before it is as good as none";
  }
}

// A commit may claim anything.
TEST_F(MomentumTest, HostileCommitsAreRefused) {
  publish(4);
  const auto commit_with = [&](const std::string& branch, auto change) {
    Commit commit = *as_bucket(*repository_).history().read(versions_[3].id);
    EXPECT_TRUE(repository_->branch(branch, versions_[2]));
    commit.id = {branch, 3, ""};
    commit.parent = versions_[2].id;
    commit.attempt = std::string(32, 'b');
    change(&commit.artifacts.front());
    EXPECT_TRUE(create_commit(*store_, commit));
    const ScratchFolder scratch;
    const Version version = *(*Repository::open(store_))->resolve(branch);
    return (*Repository::open(store_))->checkout(version, scratch.path() / "model", {});
  };
  EXPECT_TRUE(commit_with("true", [](Artifact*) {}));
  const auto hidden = commit_with("hidden", [](Artifact* delta) { delta->earlier_root.clear(); });
  ASSERT_FALSE(hidden);
  EXPECT_EQ(hidden.error().code, Code::kCorrupt) << hidden.error().message;
  const auto elsewhere =
      commit_with("elsewhere", [&](Artifact* delta) { delta->earlier_root = versions_[0].root; });
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().code, Code::kCorrupt) << elsewhere.error().message;
}

}  // namespace
}  // namespace siltstone
