// What a relay knows not to be in the store, for a short while.
//
// Versions of a branch are dense: where one is absent and an older one is there, all later ones are
// absent too, so one look answers for all of them. Threads: safe.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "relay/names.h"

namespace siltstone::relay {

class Absences {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Absences(Clock::duration life) : life_(life) {}

  // The store was asked; `at` is when, before the call.
  void absent(const ObjectName& name, Clock::time_point at);
  void present(const ObjectName& name);

  // Whether the object was absent at most `life` ago.
  bool holds(const ObjectName& name) const;
  // The newest version of the branch that is known to exist.
  std::optional<uint64_t> newest(const std::string& branch) const;

 private:
  struct Branch {
    std::optional<uint64_t> newest;
    uint64_t frontier = 0;  // the lowest absent version above newest
    Clock::time_point looked;
  };
  bool fresh(Clock::time_point at) const { return Clock::now() - at <= life_; }
  void bound();

  const Clock::duration life_;
  mutable std::mutex mutex_;
  std::map<std::string, Clock::time_point> names_;  // guarded by mutex_
  std::map<std::string, Branch> branches_;          // guarded by mutex_
};

}  // namespace siltstone::relay
