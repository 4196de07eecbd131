// Threads that take jobs from a queue, for calls that block.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace siltstone::relay {

class Workers {
 public:
  explicit Workers(unsigned threads);
  ~Workers();  // waits for running jobs
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Jobs run in the order in which they came. After stop they are dropped.
  void post(std::function<void()> job);

  // Drops what has not begun and waits for the rest; false if it was not done in time.
  bool stop(std::chrono::steady_clock::time_point deadline);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable posted_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_
  unsigned running_ = 0;                    // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace siltstone::relay
