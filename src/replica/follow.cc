// The follower: a loop over stage and commit.
#include <algorithm>
#include <random>

#include "base/try.h"
#include "repo/bucket.h"
#include "repo/keys.h"
#include "siltstone/replica.h"
#include "store/backoff.h"

namespace siltstone {
namespace {

bool stopped(const FollowOptions& options) {
  return options.stop != nullptr && options.stop->load();
}

// Waits in the store until the branch has the version after `head`: sequence numbers are dense.
// Whether it has; kUnsupported where the store does not wait.
Result<bool> wait_for_next(Repository& repository, const std::optional<Version>& head,
                           const FollowOptions& options) {
  constexpr double kSeconds = 30;
  Store& store = *as_bucket(repository).store();
  if (!head || !store.traits().waits)
    return Error{Code::kUnsupported, "the store does not wait for this"};
  return store.wait(commit_key(options.branch, head->id.seq + 1), kSeconds, options.stop);
}

// A follower never goes back on its branch: an older head means that the bucket lost or hides some.
Status check_forward(const std::optional<Version>& held, const Version& head) {
  if (!held || held->id.branch != head.id.branch || head.id.seq >= held->id.seq) return {};
  return Error{Code::kCorrupt, "the branch's head is " + head.id.name() + ", older than " +
                                   held->id.name() +
                                   ", which is held already: the bucket has lost "
                                   "versions"};
}

// One step; empty if there is nothing new. `newest` becomes the branch's head.
Result<std::optional<FollowStep>> advance(Replica& replica, Repository& repository,
                                          const FollowOptions& options,
                                          std::optional<Version>* newest) {
  Result<Version> found = repository.head(options.branch);
  // The branch may get its first version later.
  if (!found && found.error().code == Code::kNotFound) return std::optional<FollowStep>();
  if (!found) return std::move(found).error();
  Version head = *std::move(found);
  *newest = head;
  if (options.until_seq && head.id.seq > *options.until_seq) {
    SILT_ASSIGN(head,
                repository.resolve(options.branch + "@" + std::to_string(*options.until_seq)));
  }
  const std::optional<Version> held = replica.version();
  SILT_TRY(check_forward(held, head));
  if (held && held->id == head.id && !options.stage.repair) return std::optional<FollowStep>();
  FollowStep step;
  if (held) step.from = held->id;
  SILT_ASSIGN(std::unique_ptr<Staged> staged, replica.stage(repository, head, options.stage));
  step.bytes_fetched = staged->bytes_fetched();
  step.stage_seconds = staged->seconds();
  if (options.around_commit) {
    const Staged& change = *staged;
    SILT_ASSIGN(step.commit,
                options.around_commit(change, [&] { return replica.commit(std::move(staged)); }));
  } else {
    step.commit = replica.commit(std::move(staged));
  }
  SILT_TRY(step.commit.status);
  return std::optional<FollowStep>(std::move(step));
}

}  // namespace

Status follow(Replica& replica, Repository& repository, const FollowOptions& given,
              const std::function<Status(const FollowStep&)>& on_version) {
  FollowOptions options = given;
  std::mt19937_64 random{std::random_device{}()};
  std::uniform_real_distribution<double> jitter(0.5, 1.5);
  double waits = 0;       // failures in a row stretch the interval
  bool promised = false;  // a wait said that there is a version
  while (!stopped(options)) {
    std::optional<Version> newest;
    Result<std::optional<FollowStep>> step = advance(replica, repository, options, &newest);
    if (!step && step.error().code != Code::kUnavailable) return std::move(step).error();
    waits = step ? 0 : std::min(waits + 1, 5.0);
    if (step && *step) {
      options.stage.repair = false;
      promised = false;
      SILT_TRY(on_version(**step));
      continue;  // there may be a newer one already
    }
    const std::optional<Version> held = replica.version();
    if (options.until_seq && held && held->id.branch == options.branch &&
        held->id.seq >= *options.until_seq) {
      return {};
    }
    if (step && !promised) {
      const Result<bool> there = wait_for_next(repository, newest, options);
      promised = there && *there;
      if (there) continue;
    }
    promised = false;
    (void)sleep_unless(options.interval_seconds * jitter(random) * (1 << static_cast<int>(waits)),
                       options.stop);
  }
  return {};
}

}  // namespace siltstone
