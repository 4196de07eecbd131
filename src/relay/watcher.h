// Waits for versions on behalf of many: one look at the store per branch and interval, however many
// wait for its next version, and none while nobody does.
//
// Threads: every method may be called from any thread. `wake` runs on a thread of the watcher's or
// its workers', without locks held.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "relay/workers.h"
#include "siltstone/result.h"

namespace siltstone::relay {

class Watcher {
 public:
  using Clock = std::chrono::steady_clock;
  // Asks the store whether the version is there; may block.
  using Look = std::function<Result<bool>(const std::string& branch, uint64_t seq)>;

  // Borrows `workers`, on which looks run.
  Watcher(Clock::duration interval, Workers& workers, Look look);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Calls `wake` once: the version appeared, `deadline` passed, or the watcher stops. False, and
  // never calls it: it stops already, or the branch has waiters for too many other versions.
  bool wait(const std::string& branch, uint64_t seq, Clock::time_point deadline,
            std::function<void()> wake);

  // Wakes everybody. Looks that run may go on; their workers must end before the watcher does.
  void stop();

 private:
  struct Waiter {
    Clock::time_point deadline;
    std::function<void()> wake;
  };
  struct Branch {
    std::map<uint64_t, std::vector<Waiter>> waiting;  // by sequence number
    Clock::time_point next_look;
    bool looking = false;
    std::optional<uint64_t> newest;  // that appeared: where a later one is absent, so is the rest
  };
  using Wakes = std::vector<std::function<void()>>;

  void keep_time();
  void look_at(const std::string& branch);
  Clock::duration pause();
  Clock::time_point next_event() const;
  void expire(Clock::time_point now, Wakes* wakes);
  std::vector<uint64_t> wanted(const std::string& branch, std::optional<uint64_t>* newest);
  void appeared(const std::string& branch, uint64_t seq);

  const Clock::duration interval_;
  Workers& workers_;
  const Look look_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Branch> branches_;  // with waiters or a look; guarded by mutex_
  std::mt19937_64 random_;                  // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::thread thread_;
};

}  // namespace siltstone::relay
