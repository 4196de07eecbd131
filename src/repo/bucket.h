// The one implementation of Repository, and what the rooms above need of its inside.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "repo/head_hints.h"
#include "repo/history.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

// Sizes that tests make small. Behind a network objects are smaller, so that one delta or model
// goes over several connections: 16 packs, which is what a store is worth at once unless told
// otherwise, fill a quarter of a publish's memory if that is 1 GiB.
struct Tuning {
  uint64_t pack_bytes = uint64_t{128} << 20;           // a delta pack is closed beyond this
  uint64_t remote_pack_bytes = uint64_t{16} << 20;     // behind a network
  uint64_t tables_from_bytes = uint64_t{1} << 20;      // smaller packs are always read whole
  uint64_t batch_bytes = uint64_t{128} << 20;          // words that are diffed between flushes
  uint64_t anchor_object_bytes = uint64_t{512} << 20;  // an anchor object is closed beyond this
  uint64_t remote_anchor_object_bytes = uint64_t{128} << 20;
  uint64_t overlap_bytes = uint64_t{16} << 20;  // of a chain that is staged while it arrives
  size_t inline_objects = 48;                   // more stand in a list object
  uint64_t path_objects = 64;                   // a longer path to the head asks for an anchor
};

class Bucket final : public Repository {
 public:
  Bucket(std::shared_ptr<Store> store, const RepoRecord& record);

  RepositoryInfo info() const override;
  Result<PublishReport> publish(const Checkpoint& next, const PublishOptions& options) override;
  Result<Version> fence(std::string_view branch) override;
  Result<Version> resolve(std::string_view ref) override;
  Result<Version> head(std::string_view branch) override;
  Result<std::vector<Version>> log(std::string_view ref, uint64_t limit) override;
  Result<CheckoutReport> checkout(const Version& version, const std::filesystem::path& folder,
                                  const CheckoutOptions& options) override;
  Result<std::vector<TensorInfo>> tensors(const Version& version) override;
  Result<std::vector<std::string>> digests(const Version& version) override;
  Result<LoadReport> load(const Version& version, std::vector<MutTensorView> tensors,
                          const LoadOptions& options) override;
  Result<DiffReport> diff(const Version& from, const Version& to,
                          const DiffOptions& options) override;
  Result<VerifyReport> verify(const VerifyOptions& options) override;
  Status tag(std::string_view name, const Version& version) override;
  Result<std::vector<RefInfo>> tags() override;
  Status branch(std::string_view name, const Version& version) override;
  Result<std::vector<RefInfo>> branches() override;

  const std::shared_ptr<Store>& store() const { return store_; }
  const std::string& repo_id() const { return repo_id_; }
  // Proves once, before this process writes, that the store can be written to safely.
  Status prove_fit();
  History& history() { return history_; }
  Tuning tuning;

 private:
  friend class Publisher;
  // What this process last committed on a branch: its right to commit the next without a new epoch.
  struct Writer {
    uint64_t epoch = 0;
    VersionId last;
    bool certain = true;  // whether `last` is known to be the head, unless somebody else took over
  };

  std::shared_ptr<Store> store_;
  std::string repo_id_;
  const bool single_writer_;
  std::mutex probe_mutex_;
  bool fit_ = false;  // to be written to; guarded by probe_mutex_
  History history_;
  HeadHints hints_;
  std::mutex mutex_;
  std::map<std::string, Writer> writers_;
  std::map<std::string, bool> publishing_;
};

// REQUIRES: made by Repository::init or open.
inline Bucket& as_bucket(Repository& repository) {
  return static_cast<Bucket&>(repository);
}

// UTC now, "2026-01-31T12:00:00Z".
std::string utc_now();

}  // namespace siltstone
