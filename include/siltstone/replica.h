// A Replica is a writable copy of a known version - a model folder, or a caller's own memory - that
// can be moved to another version in place.
//
// stage() does everything slow or fallible (fetch, check, decode, prove) and leaves the copy
// untouched; commit() is the short rest. Whatever fails, the copy is afterwards UNCHANGED, APPLIED
// or POISONED (see Outcome), and the message says which and how to repair.
//
// Threads: one call at a time; readers of a folder see each file whole at all times.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "siltstone/repository.h"
#include "siltstone/result.h"
#include "siltstone/tensor.h"
#include "siltstone/version.h"

namespace siltstone {

enum class Outcome : uint8_t {
  kUnchanged,  // the copy holds the version it held before
  kApplied,    // the copy holds the new version
  kPoisoned,   // in between: do not serve from it; commit again, or open again (folders recover)
};

std::string_view outcome_name(Outcome outcome);

struct StageOptions {
  // Rebuild everything from the bucket, whatever the copy holds now.
  bool repair = false;
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Progress progress;
};

struct CommitReport {
  Outcome outcome = Outcome::kUnchanged;
  Status status;    // why it is not kApplied
  Version version;  // what was to be applied
  double seconds = 0;
};

// A proven change that has not been applied. Destroying it discards the change.
class Staged {
 public:
  virtual ~Staged() = default;
  virtual const Version& target() const = 0;
  virtual uint64_t bytes_fetched() const = 0;
  virtual uint64_t changed_elements() const = 0;
  virtual double seconds() const = 0;
  // Of the target's tensors, sorted by name, as Repository::digests; empty for a folder.
  virtual std::vector<std::string> digests() const { return {}; }
  // What it overwrites, for the Shards of processes on this host. kUnsupported if the replica's
  // tensors do not all lie in memory as in a checkpoint.
  virtual Result<std::vector<std::byte>> changes() const;
};

// Elements of a checkpoint tensor that lie in a regular pattern somewhere else: for r < rows and
// c < columns, element source_begin + r * source_row_stride + c * source_column_stride of the
// tensor is element destination_begin + r * destination_row_stride + c * destination_column_stride
// of the destination. The tensor's elements are counted row-major; strides of one row or column are
// unused. Columns lie within a row of the source: (columns - 1) * source_column_stride <
// source_row_stride.
struct SlotTile {
  uint64_t source_begin = 0;
  uint64_t destination_begin = 0;
  uint64_t rows = 1;
  uint64_t columns = 1;
  uint64_t source_row_stride = 0;
  uint64_t source_column_stride = 1;
  uint64_t destination_row_stride = 0;
  uint64_t destination_column_stride = 1;
};

// Where elements of a checkpoint tensor live in an engine: in a parameter that may hold other
// tensors too (fused, stacked), or hold them in another order. An element may have several places.
struct Slot {
  std::string tensor;
  std::span<std::byte> destination;  // elements of the tensor's dtype
  std::vector<SlotTile> tiles;
};

class Replica {
 public:
  virtual ~Replica() = default;

  // Opens a folder that a replica was made in, finishing a commit that was cut off; an absent or
  // empty folder becomes a replica with the first commit. A folder with a model but without our
  // record is adopted if its state is one of the repository's versions (kMismatch otherwise).
  // Holds a lock on the folder: kConflict if another process does.
  static Result<std::unique_ptr<Replica>> open(const std::filesystem::path& folder,
                                               Repository& repository);

  // The caller's tensors, which must hold exactly the state of `at` (proven here by digest:
  // kMismatch). They must outlive the replica; nobody else may write to them.
  static Result<std::unique_ptr<Replica>> adopt(std::vector<MutTensorView> tensors,
                                                const Version& at);

  // The same for tensors that lie in slots, which together must hold every element of `tensors`,
  // the version's (Repository::tensors), and no byte twice (kInvalidArgument) unless two tensors
  // are wholly the same bytes: tied, and the same in every version that may be staged.
  static Result<std::unique_ptr<Replica>> adopt(std::vector<TensorInfo> tensors,
                                                std::vector<Slot> slots, const Version& at);

  // The same for one of several ranks that have the version's tensors between them, each of them
  // whole: what has no slot is held elsewhere. It is neither fetched (but where packs are small)
  // nor decoded, and its digest taken from the packs' tables; the root proves both together.
  static Result<std::unique_ptr<Replica>> adopt_share(Repository& repository,
                                                      std::vector<Slot> slots, const Version& at);

  // Empty for a folder that holds nothing yet.
  virtual std::optional<Version> version() const = 0;

  // kMismatch: the copy is not what it was when it was last committed; nothing was touched.
  virtual Result<std::unique_ptr<Staged>> stage(Repository& repository, const Version& target,
                                                const StageOptions& options) = 0;
  // REQUIRES: `staged` came from this replica's last stage().
  virtual CommitReport commit(std::unique_ptr<Staged> staged) = 0;
};

// What one rank of an engine has of a version's tensors: elements of some of them, in slots. A rank
// that lacks words of a tensor cannot decode what changes there; a replica of the whole tensors, in
// the memory of its host, does it for all ranks.
//
// Threads: as Replica.
class Shard {
 public:
  virtual ~Shard() = default;

  // `copy`: the whole tensors that have slots, and perhaps more of the version's. They hold `at`,
  // proven by whoever gives them, and later, whenever stage() is called, this shard's version. Each
  // element in a slot must be the copy's (kMismatch, with the tensor's name). Slots as for
  // Replica::adopt, but may leave out elements, and two tensors share no memory. Both outlive the
  // shard.
  static Result<std::unique_ptr<Shard>> adopt(Repository& repository,
                                              const std::vector<MutTensorView>& copy,
                                              std::vector<Slot> slots, const Version& at);

  virtual const Version& version() const = 0;

  // `changes`: Staged::changes() of a replica of that copy that has staged `target`.
  // kCorrupt if they are not, kMismatch if they do not lead from this shard's version to the
  // target.
  virtual Result<std::unique_ptr<Staged>> stage(std::span<const std::byte> changes,
                                                const Version& target,
                                                const StageOptions& options) = 0;
  // REQUIRES: `staged` came from this shard's last stage().
  virtual CommitReport commit(std::unique_ptr<Staged> staged) = 0;
};

struct FollowOptions {
  std::string branch = "main";
  // Between polls; each is drawn from 0.5 to 1.5 times this. Not used where the store itself waits.
  double interval_seconds = 1.0;
  std::optional<uint64_t> until_seq;
  StageOptions stage;
  const std::atomic<bool>* stop = nullptr;  // polled; true ends the loop
  // Runs `commit` where the caller's readers are paused, and returns what it returned. An error,
  // given before or after `commit` ran, ends the loop; after kUnavailable it goes on, with whatever
  // is not applied yet. Empty: commits at once.
  std::function<Result<CommitReport>(const Staged& staged,
                                     const std::function<CommitReport()>& commit)>
      around_commit;
};

struct FollowStep {
  std::optional<VersionId> from;
  CommitReport commit;
  uint64_t bytes_fetched = 0;
  double stage_seconds = 0;
};

// Moves the replica to every new head of the branch until told to stop. Passing failures of the
// store are waited out; any other error ends the loop. `on_version` runs after each commit; an
// error of its ends the loop.
Status follow(Replica& replica, Repository& repository, const FollowOptions& options,
              const std::function<Status(const FollowStep&)>& on_version);

}  // namespace siltstone
