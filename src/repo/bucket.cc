#include "repo/bucket.h"

#include <array>
#include <chrono>
#include <ctime>

#include "base/files.h"
#include "base/try.h"
#include "repo/keys.h"
#include "repo/objects.h"

namespace siltstone {

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Result<std::unique_ptr<Repository>> Repository::init(std::shared_ptr<Store> store) {
  std::array<std::byte, 16> nonce;
  random_bytes(nonce);
  const RepoRecord record{to_hex(nonce)};
  const std::string bytes = format_repo(record);
  Status created = store->create(kRepoKey, PiecesSource({as_bytes(bytes)}));
  if (!created && created.error().code == Code::kUnavailable) {
    // The reply was lost: if it is our record that lies there, it was created.
    const Result<std::string> found = store->read_all(kRepoKey, kMaxCommitBytes);
    if (found && *found == bytes) created = {};
  }
  if (!created && created.error().code == Code::kConflict) {
    return Error{Code::kConflict, "'" + store->url() + "' already holds a repository"};
  }
  if (!created)
    return std::move(created).error().in("create a repository in '" + store->url() + "'");
  return std::unique_ptr<Repository>(new Bucket(std::move(store), record.repo_id));
}

Result<std::unique_ptr<Repository>> Repository::open(std::shared_ptr<Store> store) {
  Result<std::string> bytes = store->read_all(kRepoKey, kMaxCommitBytes);
  if (!bytes && bytes.error().code == Code::kNotFound) {
    return Error{Code::kNotFound,
                 "'" + store->url() + "' holds no repository; `siltstone init` makes one"};
  }
  if (!bytes) return std::move(bytes).error().in("open '" + store->url() + "'");
  Result<RepoRecord> record = parse_repo(*bytes);
  if (!record) return std::move(record).error().in("repo.json of '" + store->url() + "'");
  return std::unique_ptr<Repository>(new Bucket(std::move(store), record->repo_id));
}

Bucket::Bucket(std::shared_ptr<Store> store, std::string repo_id)
    : store_(std::move(store)),
      repo_id_(repo_id),
      history_(store_, std::move(repo_id)),
      hints_(store_) {}

RepositoryInfo Bucket::info() const {
  return {repo_id_, store_->url()};
}

Result<Version> Bucket::resolve(std::string_view ref) {
  SILT_ASSIGN(const VersionRef parsed, VersionRef::parse(ref));
  SILT_ASSIGN(const Commit commit, history_.resolve(parsed));
  return commit.version();
}

Result<Version> Bucket::head(std::string_view branch) {
  SILT_ASSIGN(const Commit commit,
              history_.resolve({VersionRef::Kind::kHead, std::string(branch), 0}));
  return commit.version();
}

Result<std::vector<Version>> Bucket::log(std::string_view ref, uint64_t limit) {
  SILT_ASSIGN(const VersionRef parsed, VersionRef::parse(ref));
  std::vector<Version> versions;
  SILT_ASSIGN(Commit newest, history_.resolve(parsed));
  std::optional<Commit> commit = std::move(newest);
  while (commit && versions.size() < limit) {
    versions.push_back(commit->version());
    SILT_ASSIGN(commit, history_.parent(*commit));
  }
  return versions;
}

}  // namespace siltstone
