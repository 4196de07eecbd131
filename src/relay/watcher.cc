#include "relay/watcher.h"

#include <algorithm>
#include <utility>

namespace siltstone::relay {
namespace {

// Each costs a look per interval until one of the branch's versions has been seen.
constexpr size_t kMaxVersionsPerBranch = 8;
constexpr size_t kMaxBranches = 256;

}  // namespace

Watcher::Watcher(Clock::duration interval, Workers& workers, Look look)
    : interval_(interval),
      workers_(workers),
      look_(std::move(look)),
      random_(std::random_device{}()),
      thread_([this] { keep_time(); }) {}

Watcher::~Watcher() {
  stop();
  thread_.join();
}

bool Watcher::wait(const std::string& branch, uint64_t seq, Clock::time_point deadline,
                   std::function<void()> wake) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    const auto known = branches_.find(branch);
    if (known == branches_.end() && branches_.size() >= kMaxBranches) return false;
    Branch& state = branches_[branch];
    if (state.waiting.size() >= kMaxVersionsPerBranch && !state.waiting.contains(seq)) return false;
    // Whoever waits has just been told that it is absent.
    if (known == branches_.end()) state.next_look = Clock::now() + pause();
    state.waiting[seq].push_back({deadline, std::move(wake)});
  }
  changed_.notify_one();
  return true;
}

void Watcher::stop() {
  Wakes wakes;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& [name, branch] : branches_) {
      for (auto& [seq, waiters] : branch.waiting) {
        for (Waiter& waiter : waiters) wakes.push_back(std::move(waiter.wake));
      }
      branch.waiting.clear();
    }
  }
  changed_.notify_one();
  for (const auto& wake : wakes) wake();
}

// Four fifths of the interval to all of it: relays of one store drift apart, and nobody waits
// longer.
Watcher::Clock::duration Watcher::pause() {
  const double share = std::uniform_real_distribution<double>(0.8, 1.0)(random_);
  return std::chrono::duration_cast<Clock::duration>(interval_ * share);
}

Watcher::Clock::time_point Watcher::next_event() const {
  Clock::time_point next = Clock::now() + std::chrono::hours(1);
  for (const auto& [name, branch] : branches_) {
    if (!branch.looking) next = std::min(next, branch.next_look);
    for (const auto& [seq, waiters] : branch.waiting) {
      for (const Waiter& waiter : waiters) next = std::min(next, waiter.deadline);
    }
  }
  return next;
}

void Watcher::expire(Clock::time_point now, Wakes* wakes) {
  for (auto branch = branches_.begin(); branch != branches_.end();) {
    for (auto& [seq, waiters] : branch->second.waiting) {
      const auto late = std::partition(waiters.begin(), waiters.end(),
                                       [&](const Waiter& w) { return w.deadline > now; });
      for (auto at = late; at != waiters.end(); ++at) wakes->push_back(std::move(at->wake));
      waiters.erase(late, waiters.end());
    }
    std::erase_if(branch->second.waiting, [](const auto& item) { return item.second.empty(); });
    const bool idle = branch->second.waiting.empty() && !branch->second.looking;
    branch = idle ? branches_.erase(branch) : std::next(branch);
  }
}

void Watcher::keep_time() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_until(lock, next_event());
    const Clock::time_point now = Clock::now();
    Wakes wakes;
    expire(now, &wakes);
    for (auto& [name, branch] : branches_) {
      if (branch.looking || branch.next_look > now) continue;
      branch.looking = true;
      workers_.post([this, name = name] { look_at(name); });
    }
    lock.unlock();
    for (const auto& wake : wakes) wake();
    lock.lock();
  }
}

std::vector<uint64_t> Watcher::wanted(const std::string& branch, std::optional<uint64_t>* newest) {
  const std::lock_guard lock(mutex_);
  const Branch& state = branches_[branch];
  *newest = state.newest;
  std::vector<uint64_t> versions;
  for (const auto& [seq, waiters] : state.waiting) versions.push_back(seq);
  return versions;
}

void Watcher::appeared(const std::string& branch, uint64_t seq) {
  Wakes wakes;
  {
    const std::lock_guard lock(mutex_);
    Branch& state = branches_[branch];
    state.newest = std::max(state.newest.value_or(0), seq);
    const auto found = state.waiting.find(seq);
    if (found == state.waiting.end()) return;
    for (Waiter& waiter : found->second) wakes.push_back(std::move(waiter.wake));
    state.waiting.erase(found);
  }
  for (const auto& wake : wakes) wake();
}

void Watcher::look_at(const std::string& branch) {
  std::optional<uint64_t> newest;
  for (const uint64_t seq : wanted(branch, &newest)) {
    const Result<bool> there = look_(branch, seq);
    if (there && *there) {
      appeared(branch, seq);
      newest = std::max(newest.value_or(0), seq);
    } else if (!there || (newest && seq > *newest)) {
      break;
    }
  }
  {
    const std::lock_guard lock(mutex_);
    Branch& state = branches_[branch];
    state.looking = false;
    state.next_look = Clock::now() + pause();
  }
  changed_.notify_one();
}

}  // namespace siltstone::relay
