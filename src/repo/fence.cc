// Fence: takes a branch over with a commit of a new epoch that changes nothing.
#include <array>

#include "base/files.h"
#include "base/try.h"
#include "repo/bucket.h"
#include "repo/committing.h"

namespace siltstone {

Result<Version> Bucket::fence(std::string_view branch) {
  constexpr int kAttempts = 16;
  SILT_TRY(prove_fit());
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    SILT_ASSIGN(const Commit head,
                history_.resolve({VersionRef::Kind::kHead, std::string(branch), 0}));
    Commit commit = head;
    std::array<std::byte, 16> nonce;
    random_bytes(nonce);
    commit.id = {std::string(branch), head.id.seq + 1, ""};
    commit.parent = head.id;
    commit.epoch = head.epoch + 1;
    commit.attempt = to_hex(nonce);
    commit.fence = true;
    commit.artifacts.clear();
    commit.message.clear();
    commit.step.reset();
    commit.time = utc_now();
    Result<Committed> committed = create_commit(*store_, commit);
    if (!committed && committed.error().code == Code::kConflict) continue;
    if (!committed) return std::move(committed).error();
    commit.id = committed->id;
    const std::lock_guard lock(mutex_);
    writers_[commit.id.branch] = {commit.epoch, commit.id};
    return commit.version();
  }
  return Error{Code::kConflict, "branch '" + std::string(branch) +
                                    "' is being committed to all the time; try again"};
}

}  // namespace siltstone
