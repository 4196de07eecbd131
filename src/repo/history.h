// Reading the log of a bucket: commits, heads, references.
//
// Commits are immutable, so they are kept once read. Where a store is worth several requests at
// once, the next commits of a walk are read together. Threads: safe.
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
  // such branch. One request while there is nothing new.
  Result<std::optional<Commit>> head(const std::string& branch);

  Result<Commit> resolve(const VersionRef& ref);
  Result<std::shared_ptr<const Schema>> schema(const std::string& hash);

  // Where the branch starts; empty for a root branch.
  Result<std::optional<VersionId>> fork(const std::string& branch);

  Result<std::vector<std::string>> branch_names();
  Result<std::vector<RefInfo>> tags();

  // What this process has just created itself need not be read.
  void keep(const Commit& commit);
  void keep_schema(const std::string& hash, Schema schema);
  // Whether the schema was read or written by this process.
  bool knows_schema(const std::string& hash);
  // The head as this process saw it last, without asking; empty if it never did.
  std::optional<Commit> last_seen(const std::string& branch);

 private:
  // Where the versions of a branch that begin at `first` lie, up to some version.
  struct Home {
    std::string branch;
    uint64_t first = 0;
  };
  Result<Home> home(const std::string& branch, uint64_t seq);
  // Whether the branch itself has such a version; if it can be read it is kept.
  Result<bool> exists(const std::string& branch, uint64_t seq);
  // Of several, requested at once; in order.
  Result<std::vector<bool>> exist(const std::string& branch, const std::vector<uint64_t>& seqs);
  Result<std::optional<uint64_t>> hinted_head(const std::string& branch, uint64_t first);
  Result<uint64_t> last_from(const std::string& branch, uint64_t low);
  Result<bool> narrow(const std::string& branch, const std::vector<uint64_t>& seqs, uint64_t* low,
                      uint64_t* high);
  void read_ahead(const VersionId& id);
  Result<Commit> resolve_root(const std::string& prefix);

  std::shared_ptr<Store> store_;
  std::string repo_id_;
  std::mutex mutex_;
  std::map<std::pair<std::string, uint64_t>, Commit> commits_;
  std::map<std::string, uint64_t> known_heads_;  // versions that the branches themselves have
  // A walk along parents: the version that it will ask for next, and how many were read last.
  VersionId walk_;
  uint64_t walk_batch_ = 0;
  std::map<std::string, std::optional<VersionId>> forks_;
  std::map<std::string, std::shared_ptr<const Schema>> schemas_;
};

}  // namespace siltstone
