// Every single fault at every store operation of publish: afterwards the head is the old version or
// the whole new one, the retained base holds the last committed state, and publishing again works.
#include <gtest/gtest.h>

#include <cstdio>

#include "repo/bucket.h"
#include "repo/way_back.h"
#include "siltstone/repository.h"
#include "store/faulty.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::ScratchFolder;
using test::TinyModel;

constexpr Fault kFaults[] = {Fault::kFailBefore, Fault::kFailAfter,  Fault::kNoSpace,
                             Fault::kShortRead,  Fault::kWrongBytes, Fault::kStaleHint};

enum class Case { kFirst, kFirstPacked, kDelta, kDeltaFromBucket, kDeltaAndAnchor, kMomentum };

class PublishFaults : public ::testing::TestWithParam<Case> {
 protected:
  // One publish that suffers `fault` at operation `index`. Returns whether the fault struck.
  bool run(Fault fault, uint64_t index);
  PublishOptions options() {
    PublishOptions options;
    options.threads = 1;
    options.retained = base_.get();
    options.pack_anchors = GetParam() == Case::kFirstPacked;
    options.momentum = GetParam() == Case::kMomentum;
    if (options.momentum) options.codec = "momentum";
    return options;
  }
  // Small packs, so that there are several, and lists of them.
  std::unique_ptr<Repository> open(std::shared_ptr<Store> store) {
    auto repository = *Repository::open(std::move(store));
    Tuning& tuning = as_bucket(*repository).tuning;
    if (GetParam() == Case::kMomentum)
      return repository;  // whose deltas must not make an anchor due
    tuning.pack_bytes = 64;
    tuning.batch_bytes = 64;
    tuning.inline_objects = 1;
    tuning.anchor_object_bytes = 200;
    if (GetParam() == Case::kDeltaAndAnchor) tuning.path_objects = 1;
    return repository;
  }
  void expect_base_is(const TinyModel& model) {
    for (const TinyModel::Tensor& tensor : model.tensors) {
      const auto held = base_->bytes(tensor.name);
      ASSERT_TRUE(std::ranges::equal(held, tensor.bytes)) << tensor.name;
    }
  }

  std::unique_ptr<RetainedBase> base_;
  uint64_t failed_ = 0;
};

bool PublishFaults::run(Fault fault, uint64_t index) {
  SCOPED_TRACE("fault " + std::to_string(int(fault)) + " at operation " + std::to_string(index));
  const auto memory = std::make_shared<MemoryStore>("mem://faults");
  const auto faulty = std::make_shared<FaultyStore>(memory);
  EXPECT_TRUE(Repository::init(memory));
  base_ = std::make_unique<RetainedBase>();
  std::unique_ptr<Repository> repository = open(faulty);
  TinyModel model;
  std::optional<uint64_t> old_head;
  if (GetParam() != Case::kFirst && GetParam() != Case::kFirstPacked) {
    for (uint64_t seq = 0; seq < 2; ++seq) {
      EXPECT_TRUE(repository->publish(*model.checkpoint(), options()));
      old_head = seq;
      if (seq == 0) model.step(1);
    }
    const Commit head = *as_bucket(*repository).history().read("main", *old_head);
    EXPECT_EQ(wants_way_back(head), GetParam() == Case::kMomentum);
  }
  if (GetParam() == Case::kDeltaFromBucket) {
    base_ = std::make_unique<RetainedBase>();
    repository = open(faulty);
  }
  const TinyModel before = model;
  model.step(2);

  faulty->fail_at(index, fault);
  const Result<PublishReport> report = repository->publish(*model.checkpoint(), options());
  const bool struck = faulty->struck();
  faulty->heal();

  const std::unique_ptr<Repository> reader = open(memory);
  const Result<Version> head = reader->head("main");
  const bool moved = head && head->id.seq != old_head;
  if (report) {
    EXPECT_TRUE(moved);
  } else {
    ++failed_;
    EXPECT_FALSE(report.error().message.empty());
    // Only an outcome that could not be learnt may turn out to be a commit.
    if (moved) {
      EXPECT_EQ(report.error().code, Code::kUnavailable) << report.error().message;
    }
  }
  if (base_->version()) expect_base_is(report ? model : before);
  ScratchFolder scratch;
  if (head) {
    const Result<CheckoutReport> out = reader->checkout(*head, scratch.path() / "head", {});
    EXPECT_TRUE(out) << out.error().message;
    EXPECT_TRUE((moved ? model : before).is_in(scratch.path() / "head"));
  }

  model.step(3);
  Result<PublishReport> again = repository->publish(*model.checkpoint(), options());
  // A writer whose commit went through unnoticed meets it once.
  if (!again && again.error().code == Code::kConflict) {
    again = repository->publish(*model.checkpoint(), options());
  }
  if (!again) {
    ADD_FAILURE() << again.error().message;
    return struck;
  }
  EXPECT_TRUE(reader->checkout(again->version, scratch.path() / "again", {}));
  EXPECT_TRUE(model.is_in(scratch.path() / "again"));
  VerifyOptions verify;
  verify.data = true;
  const Result<VerifyReport> verified = reader->verify(verify);
  EXPECT_TRUE(verified && verified->problems.empty());
  return struck;
}

TEST_P(PublishFaults, EndInTheOldVersionOrTheNewOne) {
  uint64_t runs = 0;
  for (const Fault fault : kFaults) {
    for (uint64_t index = 0; run(fault, index) && !HasFailure(); ++index) ++runs;
  }
  std::printf("%lu single faults, %lu failed publishes\n", static_cast<unsigned long>(runs),
              static_cast<unsigned long>(failed_));
  EXPECT_GT(failed_, 0U);
}

INSTANTIATE_TEST_SUITE_P(Cases, PublishFaults,
                         ::testing::Values(Case::kFirst, Case::kFirstPacked, Case::kDelta,
                                           Case::kDeltaFromBucket, Case::kDeltaAndAnchor,
                                           Case::kMomentum));

}  // namespace
}  // namespace siltstone
