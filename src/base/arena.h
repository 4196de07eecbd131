// Large, zeroed memory for long-lived copies of weights.
#pragma once

#include <cstdint>
#include <utility>

#include "base/bytes.h"

namespace siltstone {

// Anonymous memory on huge pages where the system grants them. Threads: as plain memory.
class Arena {
 public:
  Arena() = default;
  explicit Arena(uint64_t size_bytes);
  Arena(Arena&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Arena& operator=(Arena&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~Arena();

  MutByteSpan bytes() const;

 private:
  std::byte* base_ = nullptr;
  uint64_t mapped_bytes_ = 0;
  uint64_t size_bytes_ = 0;
};

}  // namespace siltstone
