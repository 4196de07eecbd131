#include "store/backoff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "store/rate_limit.h"

namespace siltstone {
namespace {

TEST(Backoff, DrawsBelowABoundThatDoubles) {
  double largest = 0;
  for (int round = 0; round < 200; ++round) {
    Backoff backoff(1e9);
    double bound = 0.1;
    for (int attempt = 0; attempt < 20; ++attempt, bound = std::min(10.0, 2 * bound)) {
      const double wait = backoff.next_seconds();
      EXPECT_GE(wait, 0.005);
      EXPECT_LE(wait, bound);
      largest = std::max(largest, wait);
    }
  }
  EXPECT_GT(largest, 5);
}

TEST(Backoff, WaitsAsLongAsItIsAskedTo) {
  Backoff backoff(1e9);
  EXPECT_GE(backoff.next_seconds(7), 7);
  EXPECT_LE(backoff.next_seconds(1e6), 60);
}

TEST(Backoff, GivesUpWhenTheTimeIsUp) {
  Backoff none(0);
  EXPECT_LT(none.next_seconds(), 0);
  Backoff backoff(30);
  EXPECT_GE(backoff.next_seconds(), 0);
  EXPECT_LT(backoff.next_seconds(45), 0);
  backoff.succeed();
  EXPECT_EQ(backoff.attempts(), 0U);
  EXPECT_GE(backoff.next_seconds(), 0);
}

TEST(SleepUnless, EndsWhenItIsStopped) {
  const std::atomic<bool> stop{true};
  EXPECT_FALSE(sleep_unless(1000, &stop));
  EXPECT_TRUE(sleep_unless(0, nullptr));
}

TEST(RateLimit, KeepsTheSumOfAllBelowTheRate) {
  constexpr uint64_t kRate = 1'000'000;
  RateLimit limit(kRate);
  const auto begin = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        for (int piece = 0; piece < 10; ++piece) limit.take(10'000);
      });
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_GE(seconds, (400'000.0 - 10'000) / kRate * 0.99);
}

}  // namespace
}  // namespace siltstone
