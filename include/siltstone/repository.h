// START HERE. A Repository turns the objects of a Store into versions: publish, log, checkout,
// load, diff, verify, tag, branch. docs/format/repository.md specifies what lies in the bucket.
//
//   auto store = open_store("/data/bucket");
//   auto repository = Repository::init(*store);
//   auto checkpoint = open_checkpoint("run/step_0001");
//   auto report = (*repository)->publish(**checkpoint, {.step = 1});
//
// Ownership: a Repository shares its Store. Threads: const and non-const methods may be called from
// several threads, except that one publish per branch may run at a time (others get kConflict).
// Blocking: every method returns when its work is done; options carry thread counts.
// Errors: siltstone/result.h. After any error the bucket holds the versions it held before, and the
// call may be made again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/checkpoint.h"
#include "siltstone/codec.h"
#include "siltstone/result.h"
#include "siltstone/store.h"
#include "siltstone/version.h"

namespace siltstone {

// Called now and then from worker threads with bytes done and bytes in all. False asks the call to
// stop: it fails with kCancelled, and what holds after other failures holds.
using Progress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;

// A copy of the last committed state in the publisher's own memory, so that nothing has to be read
// back. It holds that state at all times: publish moves it forward only after the commit.
// Threads: used by one publish at a time.
class RetainedBase {
 public:
  RetainedBase();
  ~RetainedBase();
  RetainedBase(RetainedBase&&) noexcept;
  RetainedBase& operator=(RetainedBase&&) noexcept;

  // Empty until the first publish through it.
  const std::optional<VersionId>& version() const;
  // The retained bytes of a tensor; empty if there is none of that name.
  std::span<const std::byte> bytes(std::string_view tensor) const;

  struct State;
  State& state() { return *state_; }
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;  // src/repo/retained.cc
};

// Where programs keep base caches: $SILTSTONE_CACHE, else $XDG_CACHE_HOME/siltstone, else
// ~/.cache/siltstone; empty if none of them is set.
std::filesystem::path default_cache();

struct PublishOptions {
  std::string branch = "main";
  std::string message;
  std::optional<int64_t> step;
  // Refuse with kConflict unless this is the branch's head ("main@3").
  std::optional<std::string> parent;
  unsigned threads = 0;                       // 0: every CPU the process may use
  uint64_t memory_bytes = uint64_t{1} << 30;  // bound of buffers, whatever the model's size
  std::string codec;                          // force one where it can be; empty: the smallest
  Effort effort = Effort::kDefault;           // what choosing and coding may spend
  // Deltas 5 to 9 % smaller, coded by how the version before moved the words. For readers that take
  // every version, one after the other: they keep what they need for it, a hundredth of the model's
  // size, and so does the publisher (in `retained` or `cache`; without either of them no delta is
  // coded so, nor with Effort::kFast). A reader that enters without it fetches an anchor.
  bool momentum = false;
  // Anchors about a third smaller, as sections that only this library reads.
  bool pack_anchors = false;
  RetainedBase* retained = nullptr;  // else the base cache on disk, else the bucket
  std::filesystem::path cache;       // base cache; empty: no cache
  Progress progress;
};

struct PublishReport {
  Version version;
  ArtifactKind kind = ArtifactKind::kAnchor;  // kDelta when there is a delta, even beside an anchor
  uint64_t bytes_written = 0;                 // of all objects this publish created
  uint64_t section_bytes = 0;
  uint64_t changed_elements = 0;
  uint64_t total_elements = 0;
  uint64_t total_bytes = 0;    // of the full model's tensors
  std::string base;            // where the previous state was read from: for people
  bool single_writer = false;  // the bucket cannot keep a second writer from overwriting this
  double seconds = 0;
};

struct CheckoutOptions {
  bool replace = false;  // the target folder may exist and hold files: they are removed
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Progress progress;
};

struct CheckoutReport {
  Version version;
  uint64_t bytes_fetched = 0;
  uint64_t bytes_written = 0;
  uint64_t files = 0;
  double seconds = 0;
};

struct LoadOptions {
  bool some = false;  // the memory is for some of the tensors; the others are read all the same
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Progress progress;
};

struct LoadReport {
  Version version;
  uint64_t bytes_fetched = 0;
  double seconds = 0;
};

struct VerifyOptions {
  std::optional<std::string> version;  // only this one; else every version of every branch
  bool data = false;                   // read every object and rebuild every version
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Progress progress;
};

struct VerifyReport {
  uint64_t versions = 0;
  uint64_t objects = 0;
  uint64_t bytes = 0;                 // read
  std::vector<std::string> problems;  // empty: everything is as it should be
};

struct TensorDiff {
  std::string name;
  std::string change;  // "changed", "added", "removed", "retyped"
  uint64_t elements = 0;
  uint64_t changed_elements = 0;
};

struct DiffOptions {
  unsigned threads = 0;
  Progress progress;
};

struct DiffReport {
  std::string from_root;
  std::string to_root;
  uint64_t total_elements = 0;
  uint64_t changed_elements = 0;
  std::vector<TensorDiff> tensors;  // those that differ, by name
};

struct RefInfo {
  std::string name;
  VersionId target;  // of a branch: where it forked, or its head where it has versions of its own
};

struct InitOptions {
  // Take a store that does not create exclusively. The word of whoever asks for it is then all that
  // keeps two writers from overwriting each other's versions.
  bool single_writer = false;
};

struct RepositoryInfo {
  std::string repo_id;  // 32 hexadecimal digits
  std::string url;
  bool single_writer = false;  // InitOptions::single_writer
};

class Repository {
 public:
  virtual ~Repository() = default;

  // Creates repo.json; kConflict if the store already holds a repository, kUnsupported if the store
  // turns out not to do what the commit protocol rests on.
  static Result<std::unique_ptr<Repository>> init(std::shared_ptr<Store> store,
                                                  const InitOptions& options = {});
  static Result<std::unique_ptr<Repository>> open(std::shared_ptr<Store> store);

  virtual RepositoryInfo info() const = 0;

  // Makes `next` the branch's next version. kConflict: somebody else committed first (or `parent`
  // is not the head): nothing visible happened. kUnavailable: the outcome of the commit could not
  // be learnt; publish again, which continues from whatever is there.
  virtual Result<PublishReport> publish(const Checkpoint& next, const PublishOptions& options) = 0;

  // Takes a branch over from any other writer: their next commit is refused.
  virtual Result<Version> fence(std::string_view branch) = 0;

  virtual Result<Version> resolve(std::string_view ref) = 0;
  // The head of a branch, cheaply: what a follower polls.
  virtual Result<Version> head(std::string_view branch) = 0;
  // Newest first, at most `limit`, following parents across the fork of a branch.
  virtual Result<std::vector<Version>> log(std::string_view ref, uint64_t limit) = 0;

  // Rebuilds a version into an absent or empty folder, every file byte for byte.
  virtual Result<CheckoutReport> checkout(const Version& version,
                                          const std::filesystem::path& folder,
                                          const CheckoutOptions& options) = 0;

  // What a version holds, sorted by name.
  virtual Result<std::vector<TensorInfo>> tensors(const Version& version) = 0;
  // Their digests, in the same order, 32 hexadecimal digits each (docs/format/digest.md), from the
  // headers of its objects (small packs are read whole): proven to give the version's root.
  virtual Result<std::vector<std::string>> digests(const Version& version) = 0;
  // Rebuilds a version into the caller's memory: all its tensors (or LoadOptions::some), in any
  // order, proven when this returns. kMismatch, before anything is written, if names, dtypes or
  // shapes are others. After any other failure the tensors' content is unspecified.
  virtual Result<LoadReport> load(const Version& version, std::vector<MutTensorView> tensors,
                                  const LoadOptions& options) = 0;

  virtual Result<DiffReport> diff(const Version& from, const Version& to,
                                  const DiffOptions& options) = 0;
  virtual Result<VerifyReport> verify(const VerifyOptions& options) = 0;

  virtual Status tag(std::string_view name, const Version& version) = 0;
  virtual Result<std::vector<RefInfo>> tags() = 0;
  // A branch that starts at `version` and shares its data.
  virtual Status branch(std::string_view name, const Version& version) = 0;
  virtual Result<std::vector<RefInfo>> branches() = 0;
};

// The digest of a tensor's bytes, as Repository::digests tells it.
std::string tensor_digest(std::span<const std::byte> bytes);

// What differs between two checkpoints on disk or in memory.
Result<DiffReport> diff_checkpoints(const Checkpoint& from, const Checkpoint& to,
                                    const DiffOptions& options);

}  // namespace siltstone
