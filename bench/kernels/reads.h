// The yardstick: loops that only read, as fast as one thread can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace siltstone::bench {

struct ReadLoop {
  const char* name;
  // Sums of what was read, so that no load can be left out. `bytes` is a multiple of 512.
  uint64_t (*one_stream)(const std::byte* a, size_t bytes);
  uint64_t (*two_streams)(const std::byte* a, const std::byte* b, size_t bytes);
  // `bytes` of b and twice as many of a.
  uint64_t (*wide_and_narrow)(const std::byte* a, const std::byte* b, size_t bytes);
};

// Those this CPU runs. A benchmark measures all and compares with the fastest.
std::span<const ReadLoop> read_loops();

}  // namespace siltstone::bench
