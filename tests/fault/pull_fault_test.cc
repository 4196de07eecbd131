// Every single fault at every store operation of checkout and pull: the target is what it was, or
// exactly the version, and the same call works once the store is well again.
#include <gtest/gtest.h>

#include <cstdio>

#include "repo/bucket.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/faulty.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;
using test::TinyModel;

constexpr Fault kFaults[] = {Fault::kFailBefore, Fault::kFailAfter,  Fault::kNoSpace,
                             Fault::kShortRead,  Fault::kWrongBytes, Fault::kStaleHint};
// Whether the versions are coded by momentum.
class PullFaults : public ::testing::TestWithParam<bool> {
 protected:
  PullFaults() {
    auto repository = *Repository::init(memory_);
    if (!GetParam()) as_bucket(*repository).tuning.pack_bytes = 64;
    as_bucket(*repository).tuning.inline_objects = 1;
    TinyModel model;
    RetainedBase retained;
    PublishOptions options;
    options.momentum = GetParam();
    options.retained = &retained;
    if (GetParam()) options.codec = "momentum";
    for (int i = 0; i < versions(); ++i) {
      EXPECT_TRUE(repository->publish(*model.checkpoint(), options));
      models_.push_back(model);
      model.step(static_cast<uint64_t>(i));
    }
    const Commit head =
        *as_bucket(*repository).history().read("main", static_cast<uint64_t>(versions() - 1));
    EXPECT_EQ(!head.find(ArtifactKind::kDelta)->earlier_root.empty(), GetParam());
  }

  // No delta looks back after the anchor that the fourth one makes due.
  static int versions() { return GetParam() ? 4 : 5; }

  std::unique_ptr<Repository> healthy() { return *Repository::open(memory_); }

  // Stages and commits the head; the error of whatever failed.
  static Status move(Replica& replica, Repository& repository) {
    const Result<Version> head = repository.head("main");
    if (!head) return head.error();
    StageOptions options;
    options.threads = 1;
    Result<std::unique_ptr<Staged>> staged = replica.stage(repository, *head, options);
    if (!staged) return std::move(staged).error();
    return replica.commit(*std::move(staged)).status;
  }

  // Calls once(faulty store) with every fault at every operation until none is struck any more.
  template <class Once>
  void for_every_fault(const Once& once) {
    uint64_t runs = 0;
    for (const Fault fault : kFaults) {
      for (uint64_t index = 0; !HasFailure(); ++index) {
        SCOPED_TRACE("fault " + std::to_string(int(fault)) + " at " + std::to_string(index));
        const auto faulty = std::make_shared<FaultyStore>(memory_);
        once(
            *faulty, [&] { faulty->fail_at(index, fault); }, faulty);
        if (!faulty->struck()) break;
        ++runs;
      }
    }
    std::printf("%lu single faults, %lu failures\n", static_cast<unsigned long>(runs),
                static_cast<unsigned long>(failed_));
    EXPECT_GT(failed_, 0U);
  }

  // `held`: version in the folder before, or none.
  void pull_into_folder(std::optional<int> held) {
    for_every_fault([&](FaultyStore&, const auto& arm, const std::shared_ptr<Store>& store) {
      ScratchFolder scratch;
      const fs::path folder = scratch.path() / "replica";
      const auto good = healthy();
      if (held) {
        auto replica = *Replica::open(folder, *good);
        const Version from = *good->resolve("main@" + std::to_string(*held));
        EXPECT_TRUE(replica->commit(*replica->stage(*good, from, {})).status);
      }
      {
        auto replica = *Replica::open(folder, *good);
        const auto repository = *Repository::open(store);
        arm();
        const Status status = move(*replica, *repository);
        if (status) {
          EXPECT_TRUE(models_.back().is_in(folder));
          return;
        }
        ++failed_;
        EXPECT_FALSE(status.error().message.empty());
        if (held) {
          EXPECT_TRUE(models_[static_cast<size_t>(*held)].is_in(folder));
        }
      }
      auto replica = *Replica::open(folder, *good);
      const Status again = move(*replica, *good);
      EXPECT_TRUE(again) << again.error().message;
      EXPECT_TRUE(models_.back().is_in(folder));
    });
  }

  std::shared_ptr<MemoryStore> memory_ = std::make_shared<MemoryStore>("mem://pull-faults");
  std::vector<TinyModel> models_;
  uint64_t failed_ = 0;
};

TEST_P(PullFaults, CheckoutLeavesNothingOrTheVersion) {
  for_every_fault([&](FaultyStore&, const auto& arm, const std::shared_ptr<Store>& store) {
    ScratchFolder scratch;
    const fs::path folder = scratch.path() / "out";
    const auto repository = *Repository::open(store);
    const Version head = *repository->head("main");
    arm();
    CheckoutOptions options;
    options.threads = 1;
    if (repository->checkout(head, folder, options)) {
      EXPECT_TRUE(models_.back().is_in(folder));
      return;
    }
    ++failed_;
    EXPECT_TRUE(fs::is_empty(scratch.path()));
    EXPECT_TRUE(healthy()->checkout(head, folder, options));
    EXPECT_TRUE(models_.back().is_in(folder));
  });
}

TEST_P(PullFaults, FreshFolder) {
  pull_into_folder(std::nullopt);
}
TEST_P(PullFaults, FolderOneVersionBehind) {
  pull_into_folder(versions() - 2);
}
TEST_P(PullFaults, FolderSeveralVersionsBehind) {
  pull_into_folder(0);
}

TEST_P(PullFaults, MemoryHoldsTheOldVersionOrTheNewOne) {
  for_every_fault([&](FaultyStore&, const auto& arm, const std::shared_ptr<Store>& store) {
    TinyModel live = models_[1];
    const auto good = healthy();
    auto replica = *Replica::adopt(live.views(), *good->resolve("main@1"));
    const auto repository = *Repository::open(store);
    arm();
    const Status status = move(*replica, *repository);
    EXPECT_TRUE(live == (status ? models_.back() : models_[1]));
    if (status) return;
    ++failed_;
    EXPECT_TRUE(move(*replica, *good));
    EXPECT_TRUE(live == models_.back());
  });
}

INSTANTIATE_TEST_SUITE_P(Momentum, PullFaults, ::testing::Bool());

}  // namespace
}  // namespace siltstone
