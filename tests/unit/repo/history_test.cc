// One history: heads and hints, forks, fences, racing writers, and the cheapest path to a version.
#include <gtest/gtest.h>

#include <thread>

#include "repo/bucket.h"
#include "repo/keys.h"
#include "repo/plan.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::ScratchFolder;
using test::TinyModel;

class HistoryTest : public ::testing::Test {
 protected:
  HistoryTest() : repository_(*Repository::init(store_)) {}

  std::unique_ptr<Repository> open() { return *Repository::open(store_); }
  Result<PublishReport> publish(Repository& repository, const std::string& branch = "main") {
    PublishOptions options;
    options.branch = branch;
    options.threads = 1;
    model_.step(++steps_);
    return repository.publish(*model_.checkpoint(), options);
  }
  uint64_t objects(const std::string& prefix) { return store_->list(prefix)->size(); }

  std::shared_ptr<MemoryStore> store_ = std::make_shared<MemoryStore>("mem://history");
  std::unique_ptr<Repository> repository_;
  TinyModel model_;
  uint64_t steps_ = 0;
};

TEST_F(HistoryTest, HeadIsFoundWhateverTheHintSays) {
  for (int i = 0; i < 23; ++i) ASSERT_TRUE(publish(*repository_));
  const std::string key = head_key("main");
  const auto head_with = [&](std::string_view hint) {
    EXPECT_TRUE(store_->replace(key, as_bytes(hint)));
    return open()->head("main")->id.seq;
  };
  EXPECT_EQ(head_with(R"({"seq":22})"), 22U);
  EXPECT_EQ(head_with(R"({"seq":3})"), 22U);
  EXPECT_EQ(head_with(R"({"seq":99})"), 22U);
  EXPECT_EQ(head_with(R"({"seq":18446744073709551615})"), 22U);
  EXPECT_EQ(head_with(R"({"se)"), 22U);
  EXPECT_EQ(head_with(""), 22U);
  EXPECT_TRUE(store_->remove(key));
  EXPECT_EQ(open()->head("main")->id.seq, 22U);
}

TEST_F(HistoryTest, BranchSharesItsParentsDataAndVersions) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(publish(*repository_));
  const uint64_t data = objects("obj/");
  ASSERT_TRUE(repository_->branch("side", *repository_->resolve("main@1")));
  EXPECT_EQ(objects("obj/"), data);
  EXPECT_EQ(repository_->resolve("side")->id.name(), "main@1");
  const auto report = publish(*repository_, "side");
  ASSERT_TRUE(report);
  EXPECT_EQ(report->version.id.name(), "side@2");
  EXPECT_EQ(report->kind, ArtifactKind::kDelta);
  EXPECT_EQ(repository_->resolve("side@0")->id.name(), "main@0");
  const auto log = repository_->log("side", 10);
  ASSERT_TRUE(log);
  ASSERT_EQ(log->size(), 3U);
  EXPECT_EQ((*log)[1].id.name(), "main@1");
  EXPECT_EQ(repository_->resolve("main")->id.name(), "main@2");
  // Names that are taken, and names that are none.
  EXPECT_EQ(repository_->branch("side", *repository_->resolve("main@2")).error().code,
            Code::kConflict);
  EXPECT_EQ(repository_->branch("main", *repository_->resolve("main@2")).error().code,
            Code::kConflict);
  EXPECT_EQ(repository_->branch("../x", *repository_->resolve("main")).error().code,
            Code::kInvalidArgument);
}

TEST_F(HistoryTest, TagsStayWhereTheyWerePut) {
  ASSERT_TRUE(publish(*repository_));
  ASSERT_TRUE(publish(*repository_));
  const Version first = *repository_->resolve("main@0");
  ASSERT_TRUE(repository_->tag("release", first));
  EXPECT_TRUE(repository_->tag("release", first)) << "said twice is said once";
  EXPECT_EQ(repository_->tag("release", *repository_->resolve("main@1")).error().code,
            Code::kConflict);
  EXPECT_EQ(repository_->resolve("tag:release")->id, first.id);
  EXPECT_EQ(repository_->resolve("root:" + first.root.substr(0, 12))->id, first.id);
  EXPECT_EQ(repository_->resolve("tag:none").error().code, Code::kNotFound);
  EXPECT_EQ(repository_->resolve("main@7").error().code, Code::kNotFound);
  EXPECT_EQ(repository_->resolve("root:ffffffffffff").error().code, Code::kNotFound);
  for (const char* bad : {"", "main@", "main@x", "main@-1", "root:XYZ", "root:ab", "a/b", "tag:"}) {
    EXPECT_EQ(repository_->resolve(bad).error().code, Code::kInvalidArgument) << bad;
  }
}

TEST_F(HistoryTest, SupersededWriterCannotCommit) {
  ASSERT_TRUE(publish(*repository_));
  const auto other = open();
  const Result<Version> fence = other->fence("main");
  ASSERT_TRUE(fence);
  EXPECT_TRUE(fence->fence);
  const uint64_t before = objects("log/");
  const auto late = publish(*repository_);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kConflict);
  EXPECT_EQ(objects("log/"), before);
  const auto next = publish(*other);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->version.epoch, fence->epoch);
  EXPECT_EQ(next->kind, ArtifactKind::kDelta) << "a fence does not break the chain";
  const ScratchFolder scratch;
  ASSERT_TRUE(open()->checkout(next->version, scratch.path() / "out", {}));
  EXPECT_TRUE(model_.is_in(scratch.path() / "out"));
}

TEST_F(HistoryTest, RacingPublishersMakeOneHistory) {
  ASSERT_TRUE(publish(*repository_));
  constexpr int kRounds = 200;
  uint64_t won = 1;
  for (int round = 0; round < kRounds; ++round) {
    std::array<Result<PublishReport>, 2> reports = {Error{}, Error{}};
    std::array<TinyModel, 2> models = {model_, model_};
    {
      std::vector<std::jthread> threads;
      for (size_t i = 0; i < 2; ++i) {
        models[i].step(static_cast<uint64_t>(round) * 2 + i + 1000);
        threads.emplace_back([&, i] {
          PublishOptions options;
          options.threads = 1;
          reports[i] = open()->publish(*models[i].checkpoint(), options);
        });
      }
    }
    for (size_t i = 0; i < 2; ++i) {
      if (reports[i]) {
        ++won;
        model_ = models[i];
      } else {
        ASSERT_EQ(reports[i].error().code, Code::kConflict) << reports[i].error().message;
      }
    }
    ASSERT_TRUE(reports[0] || reports[1]);
  }
  const auto log = open()->log("main", UINT64_MAX);
  ASSERT_TRUE(log);
  ASSERT_EQ(log->size(), won);
  for (size_t i = 0; i < log->size(); ++i) ASSERT_EQ((*log)[i].id.seq, won - 1 - i);
  VerifyOptions options;
  options.data = true;
  EXPECT_TRUE(open()->verify(options)->problems.empty());
}

TEST_F(HistoryTest, PathIsTheCheapestOne) {
  as_bucket(*repository_).tuning.path_objects = 3;
  std::vector<Version> versions;
  for (int i = 0; i < 10; ++i) versions.push_back(publish(*repository_)->version);
  History& history = as_bucket(*repository_).history();
  for (const Version& from : versions) {
    for (const Version& to : versions) {
      const Commit target = *history.read(to.id);
      const Result<Path> path = plan_path(history, target, KnownRoots{from.root, {}});
      ASSERT_TRUE(path);
      const Result<Path> joining = plan_path(history, target, std::nullopt);
      ASSERT_TRUE(joining && joining->anchor);
      EXPECT_LE(path->bytes, joining->bytes);
      if (from.root == to.root) {
        EXPECT_EQ(path->bytes, 0U);
      }
      // One and a half anchors at most: deltas after an anchor weigh no more than half of it, up to
      // the one that made the next anchor due.
      EXPECT_LE(joining->links.size(), 4U);
    }
  }
}

TEST_F(HistoryTest, FollowerNeverGoesBack) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(publish(*repository_));
  const ScratchFolder scratch;
  const auto replica = *Replica::open(scratch.path() / "replica", *repository_);
  ASSERT_TRUE(
      replica->commit(*replica->stage(*repository_, *repository_->head("main"), {})).status);
  ASSERT_TRUE(store_->remove(commit_key("main", 2)));
  ASSERT_TRUE(store_->remove(head_key("main")));
  FollowOptions options;
  options.interval_seconds = 0.001;
  const auto reader = open();
  const Status status =
      follow(*replica, *reader, options, [](const FollowStep&) { return Status(); });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorrupt) << status.error().message;
  EXPECT_TRUE(model_.is_in(scratch.path() / "replica"));
}

}  // namespace
}  // namespace siltstone
