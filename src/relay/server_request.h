// One request, from its headers to the last byte of its reply.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "relay/cache.h"
#include "relay/names.h"

struct MHD_Connection;

namespace siltstone::relay {

// Threads: its connection's.
struct ServerRequest {
  MHD_Connection* connection = nullptr;
  std::string method;
  std::string path;
  std::chrono::steady_clock::time_point begun;
  bool head = false;
  std::optional<ObjectName> name;
  Cache::Found found;   // holds the object, so that it is not evicted meanwhile
  bool waited = false;  // for a version
  unsigned status = 0;  // 0: no reply yet
  uint64_t body_bytes = 0;
  uint64_t streamed_bytes = 0;  // of a body that arrives while it is sent

  // Moves the request from one gauge to another; null: none.
  void count_waiting(std::atomic<uint64_t>* gauge) {
    if (waiting_ != nullptr) --*waiting_;
    waiting_ = gauge;
    if (waiting_ != nullptr) ++*waiting_;
  }

 private:
  std::atomic<uint64_t>* waiting_ = nullptr;
};

}  // namespace siltstone::relay
