// The words of a plain anchor read once, in the order in which they lie, and proven on the way.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "repo/anchor.h"
#include "repo/state.h"

namespace siltstone {

// Cuts the stretches of a state into runs that lie one behind the other in an object, each read by
// one request. Behind a network threads of the pass read ahead, as many as the store is worth; else
// a run is read by whoever asks for it. Each object's SHA-256 is taken run by run, in order; runs
// of several objects alternate, so that as many hashes are taken at once as there are workers.
//
// Threads: workers call read() and release().
class AnchorPass {
 public:
  struct Options {
    unsigned workers = 1;
    uint64_t memory_bytes = 0;  // of what is read ahead
    bool prove = false;         // REQUIRES: the stretches are those of all tensors
  };
  struct Run {
    size_t object = 0;
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    std::vector<Stretch> stretches;  // in order
  };

  static Result<std::unique_ptr<AnchorPass>> begin(const AnchorBytes& anchor,
                                                   const std::vector<Stretch>& stretches,
                                                   const Options& options);
  ~AnchorPass();
  AnchorPass(const AnchorPass&) = delete;
  AnchorPass& operator=(const AnchorPass&) = delete;

  size_t size() const { return runs_.size(); }
  const Run& run(size_t number) const { return runs_[number]; }
  uint64_t largest_run() const { return largest_; }

  // The bytes of a run, until it is released. Runs are asked for in ascending order, each once.
  // kCorrupt at an object's last run if the object is not what the commit promises. Empty after
  // stop().
  Result<std::optional<ByteSpan>> read(size_t number, unsigned worker);
  void release(size_t number);
  // Lets nobody wait any more: something has failed.
  void stop();

 private:
  // What is read ahead: run `number`, once it is ready; run number + slots comes after it.
  struct Slot {
    size_t number = 0;
    bool ready = false;
    Status status;
    std::vector<std::byte> bytes;
  };
  struct Hash {
    Sha256 sha256;
    uint64_t next_bytes = 0;
  };

  AnchorPass(const AnchorBytes& anchor, const Options& options)
      : anchor_(anchor), options_(options) {}
  Status cut(const std::vector<Stretch>& stretches);
  Status start_hashes(const std::vector<std::vector<Run>>& by_object);
  void start_reading();
  void read_ahead();
  Status fetch(const Run& run, std::vector<std::byte>* bytes) const;
  Result<bool> hash(const Run& run, ByteSpan bytes);

  const AnchorBytes& anchor_;
  const Options options_;
  std::vector<Run> runs_;
  uint64_t largest_ = 0;
  std::vector<std::vector<std::byte>> buffers_;  // of workers, where nothing is read ahead

  std::mutex mutex_;
  std::condition_variable moved_;
  bool stopped_ = false;      // guarded by mutex_, as all below
  std::vector<Hash> hashes_;  // by object; a hash is updated by whoever's turn it is
  std::vector<Slot> slots_;
  size_t next_ = 0;  // run to read ahead
  std::vector<std::jthread> pool_;
};

}  // namespace siltstone
