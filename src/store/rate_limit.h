// Keeps a sum of transfers below a rate.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

namespace siltstone {

// Threads: many at once; each sleeps until what it takes is due.
class RateLimit {
 public:
  explicit RateLimit(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  void take(uint64_t bytes) {
    if (bytes_per_second_ == 0) return;
    Clock::time_point due;
    {
      const std::lock_guard lock(mutex_);
      due = std::max(due_, Clock::now());
      due_ = due + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                       static_cast<double>(bytes) / static_cast<double>(bytes_per_second_)));
    }
    std::this_thread::sleep_until(due);
  }

 private:
  using Clock = std::chrono::steady_clock;
  const uint64_t bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point due_;  // when what was taken so far has passed; guarded by mutex_
};

}  // namespace siltstone
