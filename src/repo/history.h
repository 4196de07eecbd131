// Reading the log of a bucket: commits, heads, references.
//
// Commits are immutable, so they are kept once read. Threads: safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "repo/commit.h"
#include "repo/schema.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

class History {
 public:
  History(std::shared_ptr<Store> store, std::string repo_id)
      : store_(std::move(store)), repo_id_(std::move(repo_id)) {}

  // kNotFound if the branch has no such version. Versions below a branch's fork are its parent's.
  Result<Commit> read(const std::string& branch, uint64_t seq);
  // The commit an id names; kCorrupt if its hash is another.
  Result<Commit> read(const VersionId& id);
  // Empty for the first version.
  Result<std::optional<Commit>> parent(const Commit& commit);

  // The newest commit; for a branch without own versions the one it starts at; empty if there is no
  // such branch.
  Result<std::optional<Commit>> head(const std::string& branch);

  Result<Commit> resolve(const VersionRef& ref);
  Result<std::shared_ptr<const Schema>> schema(const std::string& hash);

  // Where the branch starts; empty for a root branch.
  Result<std::optional<VersionId>> fork(const std::string& branch);

  Result<std::vector<std::string>> branch_names();
  Result<std::vector<RefInfo>> tags();

 private:
  Result<bool> exists(const std::string& branch, uint64_t seq);
  Result<Commit> resolve_root(const std::string& prefix);

  std::shared_ptr<Store> store_;
  std::string repo_id_;
  std::mutex mutex_;
  std::map<std::pair<std::string, uint64_t>, Commit> commits_;
  std::map<std::string, uint64_t> known_heads_;
  std::map<std::string, std::optional<VersionId>> forks_;
  std::map<std::string, std::shared_ptr<const Schema>> schemas_;
};

}  // namespace siltstone
