// How long to wait before a request is made again.
#pragma once

#include <atomic>
#include <chrono>
#include <random>

namespace siltstone {

// Waits at random between nothing and twice as much each time ("full jitter", so that many clients
// do not come back together), from a tenth of a second to ten seconds.
class Backoff {
 public:
  // Gives up `total_seconds` after it was made, or after the last success.
  explicit Backoff(double total_seconds) : total_seconds_(total_seconds) {}

  // Something was achieved: the time begins anew.
  void succeed() {
    begin_ = Clock::now();
    attempt_ = 0;
  }

  // How long to wait now, at least `asked_seconds` (of a Retry-After); negative: it is time to give
  // up.
  double next_seconds(double asked_seconds = 0);

  unsigned attempts() const { return attempt_; }
  double elapsed_seconds() const {
    return std::chrono::duration<double>(Clock::now() - begin_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  const double total_seconds_;
  Clock::time_point begin_ = Clock::now();
  unsigned attempt_ = 0;
  std::mt19937_64 random_{std::random_device{}()};
};

// Sleeps; false if `stop` (may be null) became true meanwhile.
bool sleep_unless(double seconds, const std::atomic<bool>* stop);

}  // namespace siltstone
