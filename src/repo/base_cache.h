// The publisher's memory on disk: where the words of an earlier version still lie, so that they
// need not be fetched back.
//
// It holds hard links to the files that were published last, which cost nothing while a trainer
// writes every checkpoint to new files. A trainer that rewrites its files in place destroys the
// links; that is noticed, and from then on a copy is kept - made anew only when the deltas since
// the copy weigh as much as half of it - or, where the bucket is a local directory, the bucket's
// own anchor serves. Nothing here is trusted: what is read is proven by digest before it is used.
//
// Publishers that share the folder take turns by a lock on a file in it. Whoever cannot have it at
// once, or not at all, does without the cache: a publish never waits for another one's copy. A
// folder of links that base.json does not name was left by a publisher that was killed; its links
// would hold deleted checkpoints on the disk, so the next one that has the lock removes it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "repo/history.h"
#include "repo/state.h"

namespace siltstone {

class BaseCache {
 public:
  // `folder` belongs to one branch of one repository.
  explicit BaseCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // A kept state: which version it is, and its files opened as a checkpoint.
  struct Kept {
    VersionId id;
    std::string root;
    std::vector<Sum128> sums;
    std::unique_ptr<Checkpoint> checkpoint;
    bool copied = false;
  };
  // Empty if there is none, or if it is damaged or its files were rewritten (then it is forgotten).
  // The checkpoint's files are open: it outlives what other publishers do to the folder.
  std::optional<Kept> load();

  // Keeps `checkpoint`, just published as `id`. `store_is_local`: no copy is needed. `chain_bytes`:
  // what the deltas since the kept state weigh; UINT64_MAX if none lead from it to `id`. Best
  // effort: a failure leaves no cache.
  void keep(const Checkpoint& checkpoint, const VersionId& id, const std::string& root,
            const std::vector<Sum128>& sums, bool store_is_local, uint64_t chain_bytes);

  void forget();

 private:
  struct Record;
  // Open while the lock is held.
  std::optional<File> lock();
  std::optional<Record> read_record();
  Status write_record(const Record& record);
  bool keep_files(const Checkpoint& checkpoint, Record* record);
  Status fill_folder(const Checkpoint& checkpoint, Record* record);
  void sweep(const std::string& named);
  void drop();

  std::filesystem::path folder_;
};

}  // namespace siltstone
