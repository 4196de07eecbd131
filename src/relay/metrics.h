// What a relay counts about itself. Threads: every counter may be moved from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace siltstone::relay {

struct Metrics {
  using Counter = std::atomic<uint64_t>;

  std::array<Counter, 6> replies{};  // by the first digit of the status
  Counter replies_cut = 0;           // that ended before their last byte
  Counter served_bytes = 0;
  Counter store_requests = 0;
  Counter store_errors = 0;
  Counter fetched_bytes = 0;
  Counter fetched_objects = 0;  // whole and proven
  Counter evictions = 0;
  Counter damaged_in_store = 0;  // objects that were not what was promised
  Counter damaged_in_cache = 0;
  Counter waiting_for_version = 0;  // requests held now
  Counter waiting_for_bytes = 0;
  Counter active_requests = 0;
};

struct CacheUse {
  uint64_t bytes = 0;
  uint64_t objects = 0;
  uint64_t limit_bytes = 0;
};

// The text format of Prometheus, version 0.0.4.
std::string format_metrics(const Metrics& metrics, const CacheUse& use);

}  // namespace siltstone::relay
