#include "repo/bucket.h"

#include <array>
#include <chrono>
#include <ctime>

#include "base/files.h"
#include "base/try.h"
#include "repo/keys.h"
#include "repo/objects.h"
#include "repo/probe.h"

namespace siltstone {

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

namespace {

// A directory's way of creating needs no proof.
Status probe_unless_local(Store& store) {
  return store.traits().local ? Status() : probe_store(store);
}

}  // namespace

Result<std::unique_ptr<Repository>> Repository::init(std::shared_ptr<Store> store,
                                                     const InitOptions& options) {
  const std::string what = "create a repository in '" + store->url() + "'";
  const bool there = store->size_bytes(kRepoKey).has_value();
  if (!there) {
    if (options.single_writer) SILT_TRY(store->use_single_writer());
    SILT_TRY(probe_unless_local(*store).in(what));
  }
  std::array<std::byte, 16> nonce;
  random_bytes(nonce);
  const RepoRecord record{to_hex(nonce), options.single_writer};
  const std::string bytes = format_repo(record);
  Status created = store->create(kRepoKey, PiecesSource({as_bytes(bytes)}));
  if (!created &&
      (created.error().code == Code::kUnavailable || created.error().code == Code::kConflict)) {
    // The reply may have been lost: if it is our record that lies there, it was created.
    const Result<std::string> found = store->read_all(kRepoKey, kMaxCommitBytes);
    if (found && *found == bytes) created = {};
  }
  if (!created && created.error().code == Code::kConflict) {
    return Error{Code::kConflict, "'" + store->url() + "' already holds a repository"};
  }
  if (!created) return std::move(created).error().in(what);
  return std::unique_ptr<Repository>(new Bucket(std::move(store), record));
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
  return std::unique_ptr<Repository>(new Bucket(std::move(store), *record));
}

Bucket::Bucket(std::shared_ptr<Store> store, const RepoRecord& record)
    : store_(std::move(store)),
      repo_id_(record.repo_id),
      single_writer_(record.single_writer),
      history_(store_, record.repo_id),
      hints_(store_) {
  // A copy of such a bucket may lie in a store that can do better, and needs no such mode.
  if (single_writer_) (void)store_->use_single_writer();
}

Status Bucket::prove_fit() {
  const std::lock_guard lock(probe_mutex_);
  if (!fit_) SILT_TRY(probe_unless_local(*store_));
  fit_ = true;
  return {};
}

RepositoryInfo Bucket::info() const {
  return {repo_id_, store_->url(), single_writer_};
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
