#include "relay/entry.h"

#include <algorithm>
#include <iterator>

namespace siltstone::relay {

Entry::View Entry::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

Entry::State Entry::state() const {
  const std::lock_guard lock(mutex_);
  return view_.state;
}

bool Entry::when(uint64_t progress, std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  if (progress_ >= progress) return false;
  waiters_.push_back({progress, std::move(wake)});
  return true;
}

void Entry::wait_until_done() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return progress_ == kDone; });
}

bool Entry::claim() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(claimed_, true);
}

void Entry::arrive(uint64_t length_bytes, std::shared_ptr<const File> file) {
  std::unique_lock lock(mutex_);
  view_.state = State::kArriving;
  view_.length_bytes = length_bytes;
  view_.file = std::move(file);
  move_on(kLengthKnown, std::move(lock));
}

void Entry::advance(uint64_t available_bytes) {
  std::unique_lock lock(mutex_);
  view_.available_bytes = available_bytes;
  move_on(kLengthKnown + available_bytes, std::move(lock));
}

void Entry::finish(uint64_t length_bytes) {
  std::unique_lock lock(mutex_);
  view_.state = State::kWhole;
  view_.length_bytes = view_.available_bytes = length_bytes;
  view_.file.reset();  // those who read from it hold it themselves
  move_on(kDone, std::move(lock));
}

void Entry::finish(std::string content) {
  std::unique_lock lock(mutex_);
  view_.state = State::kWhole;
  view_.length_bytes = view_.available_bytes = content.size();
  view_.content = std::make_shared<const std::string>(std::move(content));
  move_on(kDone, std::move(lock));
}

void Entry::fail(Error error) {
  std::unique_lock lock(mutex_);
  view_.state = State::kFailed;
  view_.file.reset();
  view_.error = std::move(error);
  move_on(kDone, std::move(lock));
}

// Wakes outside the lock: what wakes may look at the entry.
void Entry::move_on(uint64_t progress, std::unique_lock<std::mutex> lock) {
  progress_ = progress;
  const auto ready = std::partition(waiters_.begin(), waiters_.end(),
                                    [&](const Waiter& w) { return w.progress > progress; });
  std::vector<Waiter> woken(std::make_move_iterator(ready),
                            std::make_move_iterator(waiters_.end()));
  waiters_.erase(ready, waiters_.end());
  if (progress == kDone) done_.notify_all();
  lock.unlock();
  for (const Waiter& waiter : woken) waiter.wake();
}

}  // namespace siltstone::relay
