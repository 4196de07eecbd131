// Writes to a store that go on beside the work that makes the next ones.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "siltstone/store.h"

namespace siltstone {

// Runs writes on threads of its own, as many at once as the store is worth, where that is more than
// one; else at once, on the calling thread and in order. Threads: one caller at a time.
class Uploads {
 public:
  // What the writes that are waiting or under way hold in memory is at most `memory_bytes`, or one
  // write.
  Uploads(const Store& store, uint64_t memory_bytes);
  // Drops what was not begun and waits for the rest.
  ~Uploads();
  Uploads(const Uploads&) = delete;
  Uploads& operator=(const Uploads&) = delete;

  // `write` holds `bytes` of memory until it is destroyed, and must own or outlive what it borrows
  // until finish() or cancel(). Waits while there is no room. The error of an earlier write is
  // returned here too; then this one is not run.
  Status add(uint64_t bytes, std::function<Status()> write);
  // Waits for all. The first error.
  Status finish();
  // Drops what was not begun, waits for the rest, and forgets the error.
  void cancel();

 private:
  struct Write {
    uint64_t bytes = 0;
    std::function<Status()> run;
  };
  void work();

  const unsigned threads_;
  const uint64_t memory_bytes_;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::deque<Write> waiting_;  // guarded by mutex_, as all below
  uint64_t held_bytes_ = 0;
  unsigned busy_ = 0;
  bool closed_ = false;
  Status status_;
  std::vector<std::jthread> pool_;
};

}  // namespace siltstone
