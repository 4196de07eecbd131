#include "repo/committing.h"

#include <chrono>
#include <thread>

#include "base/checksum.h"
#include "base/try.h"
#include "repo/history.h"
#include "repo/keys.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

constexpr int kAttempts = 6;

Error taken(const Commit& commit) {
  return {Code::kConflict, "somebody else committed " + commit.id.name() +
                               " first; nothing of this publish is visible: run it again to "
                               "publish on top of theirs"};
}

}  // namespace

Result<Committed> create_commit(Store& store, const Commit& commit) {
  SILT_ASSIGN(const std::string bytes, format_commit(commit));
  const std::string key = commit_key(commit.id.branch, commit.id.seq);
  const Committed committed{{commit.id.branch, commit.id.seq, sha256_hex(as_bytes(bytes))}, bytes};
  const PiecesSource source({as_bytes(bytes)}, committed.id.commit_hash);
  std::string last;
  const int attempts = store.traits().retries ? 1 : kAttempts;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5 << attempt));
    Status status = store.create(key, source);
    if (status) return committed;
    const Code code = status.error().code;
    if (code != Code::kConflict && code != Code::kUnavailable) return std::move(status).error();
    last = status.error().message;
    const Result<std::string> found = store.read_all(key, kMaxCommitBytes);
    if (found) {
      if (*found == bytes) return committed;
      return taken(commit);
    }
    // Not there: the request never arrived, so the same one may be sent again.
  }
  return Error{Code::kUnavailable,
               "whether " + commit.id.name() + " was committed could not be learnt (" + last +
                   "); `siltstone log` tells once the store answers, then publish again"};
}

}  // namespace siltstone
