#include "calls.h"

#include <chrono>

namespace siltstone::python {

Progress Meter::progress() {
  return [this](uint64_t done, uint64_t total) {
    const std::lock_guard lock(mutex_);
    done_bytes_ = done;
    total_bytes_ = total;
    return !stop_;
  };
}

void Meter::finish() {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

std::exception_ptr Meter::wait(const nb::object& on_progress) {
  constexpr auto kBetween = std::chrono::milliseconds(50);
  std::exception_ptr raised;
  uint64_t told = 0;
  for (bool finished = false; !finished;) {
    uint64_t done = 0;
    uint64_t total = 0;
    {
      const nb::gil_scoped_release release;
      std::unique_lock lock(mutex_);
      finished = changed_.wait_for(lock, kBetween, [this] { return finished_; });
      done = done_bytes_;
      total = total_bytes_;
    }
    if (raised) continue;
    try {
      if (!finished && PyErr_CheckSignals() != 0) throw nb::python_error();
      // Also after the end: short calls would not be told of otherwise.
      if (!on_progress.is_none() && done != told) on_progress(done, total);
      told = done;
    } catch (...) {
      raised = std::current_exception();
      stop_ = true;
    }
  }
  return raised;
}

void register_failures() {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Failure& failure) {
      const nb::object classes = nb::module_::import_("siltstone.errors").attr("BY_CODE");
      const nb::object error = classes[nb::int_(static_cast<int>(failure.error.code))];
      PyErr_SetString(error.ptr(), failure.error.message.c_str());
    }
  });
}

}  // namespace siltstone::python
