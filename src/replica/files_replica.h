// A replica that is a model folder.
//
// Staging writes every weight file that changes anew, beside the live one, in DIR/.siltstone;
// commit records what it is about to rename, renames, and records the version. A folder that was
// cut off in between is finished when it is opened again, so that no file is ever torn and no set
// of files stays mixed. docs/decisions/0011-replica-folders.md says why files are rewritten and not
// patched.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "repo/bucket.h"
#include "repo/plan.h"
#include "repo/state.h"
#include "siltstone/replica.h"

namespace siltstone {

// DIR/.siltstone/replica.json: what the folder holds.
struct ReplicaRecord {
  std::string repo_id;
  Version version;
  std::string schema;
  std::vector<Sum128> sums;
  struct Seen {
    std::string path;
    FileStat stat;
  };
  std::vector<Seen> files;  // weight files as they were left
};

std::string format_replica(const ReplicaRecord& record);
Result<ReplicaRecord> parse_replica(std::string_view bytes);

// DIR/.siltstone/journal.json: a commit that has begun.
struct ReplicaJournal {
  std::string stage;                 // folder below .siltstone that holds the new files
  std::vector<std::string> renames;  // paths: stage/<path> becomes <path>
  std::vector<std::string> removals;
  ReplicaRecord record;
};

std::string format_journal(const ReplicaJournal& journal);
Result<ReplicaJournal> parse_journal(std::string_view bytes);

class FilesReplica final : public Replica {
 public:
  static Result<std::unique_ptr<Replica>> open(const std::filesystem::path& folder, Bucket& bucket);

  std::optional<Version> version() const override;
  Result<std::unique_ptr<Staged>> stage(Repository& repository, const Version& target,
                                        const StageOptions& options) override;
  CommitReport commit(std::unique_ptr<Staged> staged) override;

 private:
  struct Change;  // the Staged of this kind

  explicit FilesReplica(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path own(std::string_view name) const { return folder_ / ".siltstone" / name; }

  Status lock();
  Status finish_journal();
  Status apply_journal(const ReplicaJournal& journal);
  Status adopt_existing(Bucket& bucket);
  void remove_leftovers();
  // The way from what the folder holds, and, if its first link looks back, the way back.
  Result<Path> plan(Bucket& bucket, const Commit& target, const StageOptions& options,
                    std::unique_ptr<const Chain>* back) const;
  Status stage_links(Bucket& bucket, const Commit& target, const Path& path, const Chain* back,
                     const StageOptions& options, Change* change);
  Status stage_all(Bucket& bucket, const Commit& target, const StageOptions& options,
                   Change* change);
  Status stage_companions(Bucket& bucket, const Schema& schema, const Schema* old, Change* change);

  std::filesystem::path folder_;
  File lock_;
  std::optional<ReplicaRecord> record_;
  bool foreign_ = false;  // holds files that are no version of the repository
};

}  // namespace siltstone
