// How the bindings call the library: with the GIL released, on a thread of the call's own, while
// the calling thread looks for signals (Ctrl-C) and tells the caller's progress function.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "siltstone/repository.h"
#include "siltstone/result.h"

namespace siltstone::python {

namespace nb = nanobind;

// Becomes the exception class of its code (siltstone/errors.py).
struct Failure {
  Error error;
};
void register_failures();

template <class T>
T unwrap(Result<T> result) {
  if (!result) throw Failure{std::move(result).error()};
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

// What a call has done so far, and whether it is to stop.
class Meter {
 public:
  Progress progress();
  void finish();
  // Waits with the GIL released until the call is finished; runs signal handlers and `on_progress`
  // in between. REQUIRES: the GIL is held. Returns what they raised, after asking the call to stop.
  std::exception_ptr wait(const nb::object& on_progress);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  bool finished_ = false;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;

  std::atomic<bool> stop_{false};
};

// Calls fn(Progress), which returns a Result<T>; gives the T or throws. `on_progress` is None or
// called with bytes done and bytes in all, on the calling thread.
template <class Fn>
auto call(const nb::object& on_progress, Fn fn) {
  using Returned = decltype(fn(Progress()));
  Meter meter;
  std::optional<Returned> returned;
  std::exception_ptr thrown;
  std::thread worker([&] {
    try {
      returned.emplace(fn(meter.progress()));
    } catch (...) {
      thrown = std::current_exception();  // allocation failure
    }
    meter.finish();
  });
  const std::exception_ptr raised = meter.wait(on_progress);
  {
    const nb::gil_scoped_release release;
    worker.join();
  }
  if (raised) std::rethrow_exception(raised);
  if (thrown) std::rethrow_exception(thrown);
  return unwrap(*std::move(returned));
}

}  // namespace siltstone::python
