// How long calls tell what they have done, and learn that they are to stop.
#pragma once

#include <atomic>
#include <cstdint>

#include "siltstone/repository.h"

namespace siltstone {

// `progress` may be empty.
inline Status tell(const Progress& progress, uint64_t done_bytes, uint64_t total_bytes) {
  if (!progress || progress(done_bytes, total_bytes)) return {};
  return Error{Code::kCancelled, "stopped because the caller asked for it"};
}

// The progress of a call whose parts work at the same time. Threads: any; `progress` is called from
// all of them.
class Meter {
 public:
  explicit Meter(Progress progress, uint64_t total_bytes = 0)
      : progress_(std::move(progress)), total_bytes_(total_bytes) {}

  void expect(uint64_t more_bytes) { total_bytes_ += more_bytes; }
  Status add(uint64_t bytes) {
    const uint64_t done = done_bytes_ += bytes;
    return tell(progress_, done, total_bytes_);
  }

 private:
  const Progress progress_;
  std::atomic<uint64_t> total_bytes_;
  std::atomic<uint64_t> done_bytes_{0};
};

}  // namespace siltstone
