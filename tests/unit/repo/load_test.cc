// Loading into memory that does not fit, and calls that are asked to stop.
#include <gtest/gtest.h>

#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "support/test_store.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::ScratchFolder;
using test::TinyModel;

class Load : public ::testing::Test {
 protected:
  Load() {
    const Result<PublishReport> first = repository_->publish(*model_.checkpoint(), {});
    version_ = first->version;
  }

  Code load_error(std::vector<MutTensorView> views) {
    const Result<LoadReport> report = repository_->load(version_, std::move(views), {});
    return report ? Code{} : report.error().code;
  }

  const std::shared_ptr<Store> store_ = test_store();
  const std::unique_ptr<Repository> repository_ = *Repository::init(store_);
  TinyModel model_;
  Version version_;
};

TEST_F(Load, TellsWhatAVersionHolds) {
  const auto tensors = repository_->tensors(version_);
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), model_.tensors.size());
  for (size_t i = 0; i < tensors->size(); ++i) {
    EXPECT_EQ((*tensors)[i].name, model_.tensors[i].name);
    EXPECT_EQ((*tensors)[i].shape, model_.tensors[i].shape);
    EXPECT_EQ((*tensors)[i].size_bytes, model_.tensors[i].bytes.size());
  }
}

TEST_F(Load, SomeTensorsAreEnoughIfAskedFor) {
  TinyModel loaded = model_;
  loaded.step(9);
  const TinyModel before = loaded;
  LoadOptions some;
  some.some = true;
  const auto report = repository_->load(version_, {loaded.views()[1], loaded.views()[3]}, some);
  ASSERT_TRUE(report) << report.error().message;
  for (size_t i = 0; i < loaded.tensors.size(); ++i) {
    EXPECT_EQ(loaded.tensors[i], (i % 2 == 1 ? model_ : before).tensors[i]);
  }
  EXPECT_TRUE(repository_->load(version_, {}, some));
  std::vector<MutTensorView> unknown = {loaded.views()[1]};
  unknown[0].name = "other";
  EXPECT_EQ(repository_->load(version_, unknown, some).error().code, Code::kMismatch);
}

// From an anchor alone, and with deltas on top.
TEST_F(Load, TellsTheDigestsOfAVersion) {
  for (uint64_t step = 0; step < 3; ++step) {
    const auto digests = repository_->digests(version_);
    ASSERT_TRUE(digests) << digests.error().message;
    ASSERT_EQ(digests->size(), model_.tensors.size());
    for (size_t i = 0; i < digests->size(); ++i)
      EXPECT_EQ((*digests)[i], tensor_digest(model_.tensors[i].bytes)) << "step " << step;
    model_.step(step);
    const auto report = repository_->publish(*model_.checkpoint(), {});
    ASSERT_TRUE(report);
    version_ = report->version;
  }
}

TEST_F(Load, RefusesOtherTensorsBeforeItWrites) {
  TinyModel other = model_;
  other.step(1);
  const TinyModel before = other;
  std::vector<MutTensorView> views = other.views();
  views.pop_back();
  EXPECT_EQ(load_error(views), Code::kMismatch);
  views = other.views();
  views.push_back({"zzz", DType::kU8, {0}, {}, {}});
  EXPECT_EQ(load_error(views), Code::kMismatch);
  views = other.views();
  views[0].name = "other";
  EXPECT_EQ(load_error(views), Code::kMismatch);
  views = other.views();
  views[0].shape = {33, 1};
  EXPECT_EQ(load_error(views), Code::kMismatch);
  views = other.views();
  views[0].dtype = DType::kI32;
  EXPECT_EQ(load_error(views), Code::kMismatch);
  views = other.views();
  views[0].bytes = views[0].bytes.first(4);
  EXPECT_EQ(load_error(views), Code::kInvalidArgument);
  views = other.views();
  views[0].device.kind = Device::kCuda;
  EXPECT_EQ(load_error(views), Code::kUnsupported);
  EXPECT_TRUE(other == before);
}

// A call that is asked to stop says so, and nothing of it is seen.
TEST_F(Load, StopsWhenProgressSaysSo) {
  const ScratchFolder scratch;
  const Progress stop = [](uint64_t, uint64_t) { return false; };
  TinyModel next = model_;
  next.step(1);
  PublishOptions publish;
  publish.progress = stop;
  EXPECT_EQ(repository_->publish(*next.checkpoint(), publish).error().code, Code::kCancelled);
  PublishOptions anchor = publish;
  anchor.branch = "other";
  EXPECT_EQ(repository_->publish(*next.checkpoint(), anchor).error().code, Code::kCancelled);
  EXPECT_EQ(repository_->head("main")->id, version_.id);
  EXPECT_EQ(repository_->head("other").error().code, Code::kNotFound);

  CheckoutOptions checkout;
  checkout.progress = stop;
  EXPECT_EQ(repository_->checkout(version_, scratch.path() / "out", checkout).error().code,
            Code::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
  LoadOptions load;
  load.progress = stop;
  TinyModel target;
  EXPECT_EQ(repository_->load(version_, target.views(), load).error().code, Code::kCancelled);

  const Result<PublishReport> second = repository_->publish(*next.checkpoint(), {});
  ASSERT_TRUE(second) << second.error().message;
  DiffOptions diff;
  diff.progress = stop;
  EXPECT_EQ(repository_->diff(version_, second->version, diff).error().code, Code::kCancelled);
  VerifyOptions verify;
  verify.data = true;
  verify.progress = stop;
  EXPECT_EQ(repository_->verify(verify).error().code, Code::kCancelled);

  TinyModel live = model_;
  const auto replica = *Replica::adopt(live.views(), version_);
  StageOptions stage;
  stage.progress = stop;
  EXPECT_EQ(replica->stage(*repository_, second->version, stage).error().code, Code::kCancelled);
  EXPECT_TRUE(live == model_);
  EXPECT_TRUE(replica->stage(*repository_, second->version, {}));
}

// The caller's pause lies around the commit, not around what precedes it.
TEST_F(Load, FollowsWithTheCommitInsideTheCallersPause) {
  TinyModel live = model_;
  const auto replica = *Replica::adopt(live.views(), version_);
  TinyModel next = model_;
  next.step(1);
  const Result<PublishReport> second = repository_->publish(*next.checkpoint(), {});
  ASSERT_TRUE(second);
  FollowOptions options;
  options.until_seq = second->version.id.seq;
  int pauses = 0;
  options.around_commit = [&](const Staged& staged,
                              const std::function<CommitReport()>& commit) -> Result<CommitReport> {
    ++pauses;
    EXPECT_EQ(staged.target().id, second->version.id);
    EXPECT_TRUE(live == model_);
    CommitReport report = commit();
    EXPECT_TRUE(live == next);
    return report;
  };
  const Status followed = follow(*replica, *repository_, options, [&](const FollowStep& step) {
    EXPECT_EQ(pauses, 1);
    EXPECT_EQ(step.commit.outcome, Outcome::kApplied);
    return Status();
  });
  EXPECT_TRUE(followed) << followed.error().message;

  // An error of the pause ends the loop.
  next.step(2);
  const Result<PublishReport> third = repository_->publish(*next.checkpoint(), {});
  ASSERT_TRUE(third);
  options.around_commit = [](const Staged&, const std::function<CommitReport()>&) {
    return Result<CommitReport>(Error{Code::kDevice, "the engine does not pause"});
  };
  options.until_seq.reset();
  const Status failed =
      follow(*replica, *repository_, options, [](const FollowStep&) { return Status(); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kDevice);
  EXPECT_EQ(replica->version()->id, second->version.id);
}

}  // namespace
}  // namespace siltstone
