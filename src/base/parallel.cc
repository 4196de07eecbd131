#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace siltstone {

unsigned available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count > 0) return static_cast<unsigned>(count);
  }
  return std::max(1U, std::thread::hardware_concurrency());
}

Status parallel_for(uint64_t items, unsigned threads,
                    const std::function<Status(uint64_t item, unsigned worker)>& body) {
  if (threads == 0) threads = available_threads();
  threads = static_cast<unsigned>(std::min<uint64_t>(threads, items));

  std::atomic<uint64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::optional<std::pair<uint64_t, Error>> first;
  std::exception_ptr thrown;

  auto work = [&](unsigned worker) {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) return;
      try {
        Status status = body(item, worker);
        if (status) continue;
        const std::lock_guard lock(mutex);
        if (!first || item < first->first) first = {item, std::move(status).error()};
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!thrown) thrown = std::current_exception();
      }
      stop.store(true, std::memory_order_relaxed);
    }
  };

  if (threads <= 1) {
    work(0);
  } else {
    std::vector<std::jthread> pool;
    pool.reserve(threads - 1);
    for (unsigned worker = 1; worker < threads; ++worker) pool.emplace_back(work, worker);
    work(0);
  }
  if (thrown) std::rethrow_exception(thrown);
  if (first) return std::move(first->second);
  return {};
}

}  // namespace siltstone
