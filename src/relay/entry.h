// One object on its way into the cache or in it, shared by everybody who asks for it.
//
// One thread, the one that claimed it, moves it on; any number read. Progress is one number: 0
// while nothing is known, kLengthKnown + n once n bytes may be served, kDone at the end, whichever
// it was. It never falls. Threads: every method may be called from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/files.h"
#include "siltstone/result.h"

namespace siltstone::relay {

class Entry {
 public:
  enum class State : uint8_t {
    kLooking,   // nobody knows yet whether there is such an object
    kArriving,  // its length is known, its first bytes may be served
    kWhole,     // and proven
    kFailed,
  };
  static constexpr uint64_t kLengthKnown = 1;
  static constexpr uint64_t kDone = UINT64_MAX;

  struct View {
    State state = State::kLooking;
    uint64_t length_bytes = 0;
    uint64_t available_bytes = 0;
    std::shared_ptr<const File> file;            // of an object that was arriving
    std::shared_ptr<const std::string> content;  // of one that is whole in memory alone
    Error error;                                 // of one that failed
  };
  View view() const;
  State state() const;

  // Calls `wake` once, from another thread, as soon as progress is at least `progress`. False, and
  // never calls it, if that is so already.
  bool when(uint64_t progress, std::function<void()> wake);
  void wait_until_done();

  // True for one caller, who then sees to it that the entry becomes done.
  bool claim();

  // For the one that claimed it.
  void arrive(uint64_t length_bytes, std::shared_ptr<const File> file);
  void advance(uint64_t available_bytes);
  void finish(uint64_t length_bytes);
  void finish(std::string content);
  void fail(Error error);

 private:
  void move_on(uint64_t progress, std::unique_lock<std::mutex> lock);

  struct Waiter {
    uint64_t progress;
    std::function<void()> wake;
  };

  mutable std::mutex mutex_;
  std::condition_variable done_;
  uint64_t progress_ = 0;  // guarded by mutex_, as all below
  bool claimed_ = false;
  View view_;
  std::vector<Waiter> waiters_;
};

}  // namespace siltstone::relay
