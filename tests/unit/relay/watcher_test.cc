// One look for many who wait.
#include "relay/watcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <set>

namespace siltstone::relay {
namespace {

using Clock = Watcher::Clock;
using std::chrono::hours;
using std::chrono::milliseconds;

class WatcherTest : public ::testing::Test {
 protected:
  Result<bool> look(const std::string& branch, uint64_t seq) {
    const std::lock_guard lock(mutex_);
    looks_.emplace_back(branch, seq);
    if (failing_) return Error{Code::kUnavailable, "no answer"};
    return there_.contains({branch, seq});
  }
  void publish(const std::string& branch, uint64_t seq) {
    const std::lock_guard lock(mutex_);
    there_.insert({branch, seq});
  }
  size_t looks() {
    const std::lock_guard lock(mutex_);
    return looks_.size();
  }
  void await_looks(size_t count) {
    while (looks() < count) std::this_thread::sleep_for(milliseconds(1));
  }

  std::mutex mutex_;
  std::set<std::pair<std::string, uint64_t>> there_;
  std::vector<std::pair<std::string, uint64_t>> looks_;
  bool failing_ = false;
  std::optional<Workers> workers_{2};
};

TEST_F(WatcherTest, ManyWaitersOneLookEach) {
  Watcher watcher(milliseconds(20), *workers_,
                  [&](const std::string& b, uint64_t s) { return look(b, s); });
  std::latch woken(200);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(watcher.wait("main", 3, Clock::now() + hours(1), [&] { woken.count_down(); }));
  }
  await_looks(2);
  EXPECT_FALSE(woken.try_wait());
  publish("main", 3);
  woken.wait();
  const std::lock_guard lock(mutex_);
  // Never more looks than intervals, whoever waits; the last one found it.
  for (const auto& [branch, seq] : looks_) EXPECT_EQ(seq, 3U);
  EXPECT_LT(looks_.size(), 200U);
  workers_->stop(Clock::now() + hours(1));
}

TEST_F(WatcherTest, DeadlinesPassWhateverTheStoreDoes) {
  failing_ = true;
  Watcher watcher(milliseconds(5), *workers_,
                  [&](const std::string& b, uint64_t s) { return look(b, s); });
  std::latch woken(1);
  ASSERT_TRUE(
      watcher.wait("main", 0, Clock::now() + milliseconds(40), [&] { woken.count_down(); }));
  woken.wait();
  EXPECT_GT(looks(), 0U);
  workers_->stop(Clock::now() + hours(1));
}

TEST_F(WatcherTest, NobodyWaitsNobodyLooks) {
  Watcher watcher(milliseconds(1), *workers_,
                  [&](const std::string& b, uint64_t s) { return look(b, s); });
  std::latch woken(1);
  publish("main", 0);
  ASSERT_TRUE(watcher.wait("main", 0, Clock::now() + hours(1), [&] { woken.count_down(); }));
  woken.wait();
  const size_t before = looks();
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(looks(), before);
  workers_->stop(Clock::now() + hours(1));
}

// One who waits for a version that never comes holds up nobody else.
TEST_F(WatcherTest, AVersionBelowTheForkStarvesNobody) {
  Watcher watcher(milliseconds(2), *workers_,
                  [&](const std::string& b, uint64_t s) { return look(b, s); });
  std::atomic<bool> zero{false};
  std::latch six(1), seven(1);
  ASSERT_TRUE(watcher.wait("side", 0, Clock::now() + hours(1), [&] { zero = true; }));
  ASSERT_TRUE(watcher.wait("side", 6, Clock::now() + hours(1), [&] { six.count_down(); }));
  publish("side", 6);
  six.wait();
  ASSERT_TRUE(watcher.wait("side", 7, Clock::now() + hours(1), [&] { seven.count_down(); }));
  publish("side", 7);
  seven.wait();
  EXPECT_FALSE(zero);
  watcher.stop();
  EXPECT_TRUE(zero);
  workers_->stop(Clock::now() + hours(1));
}

TEST_F(WatcherTest, WaitsAreBounded) {
  Watcher watcher(hours(1), *workers_,
                  [&](const std::string& b, uint64_t s) { return look(b, s); });
  int woken = 0;
  int taken = 0;
  for (uint64_t seq = 0; seq < 100; ++seq) {
    taken += watcher.wait("main", seq, Clock::now() + hours(1), [&] { ++woken; });
  }
  EXPECT_EQ(taken, 8);
  EXPECT_TRUE(watcher.wait("main", 0, Clock::now() + hours(1), [&] { ++woken; }));
  for (int i = 0; i < 1000; ++i) {
    taken += watcher.wait("b" + std::to_string(i), 0, Clock::now() + hours(1), [&] { ++woken; });
  }
  EXPECT_LT(taken, 400);
  watcher.stop();
  EXPECT_EQ(woken, taken + 1);
  EXPECT_FALSE(watcher.wait("main", 0, Clock::now() + hours(1), [&] { ++woken; }));
}

}  // namespace
}  // namespace siltstone::relay
