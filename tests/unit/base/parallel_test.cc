#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace siltstone {
namespace {

TEST(ParallelFor, CallsEveryItemOnce) {
  for (const unsigned threads : {0U, 1U, 2U, 7U}) {
    for (const uint64_t items : {0, 1, 6, 1000}) {
      std::vector<std::atomic<int>> calls(items);
      const Status status = parallel_for(items, threads, [&](uint64_t item, unsigned worker) {
        EXPECT_LT(worker, threads == 0 ? available_threads() : threads);
        ++calls[item];
        return Status();
      });
      EXPECT_TRUE(status);
      for (const auto& count : calls) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ParallelFor, OneThreadGoesInOrderAndStopsAtTheFirstError) {
  std::vector<uint64_t> seen;
  const Status status = parallel_for(10, 1, [&](uint64_t item, unsigned) -> Status {
    seen.push_back(item);
    if (item == 3) return Error{Code::kIo, "three"};
    return {};
  });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "three");
  EXPECT_EQ(seen, (std::vector<uint64_t>{0, 1, 2, 3}));
}

TEST(ParallelFor, TheLowestFailedItemWins) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> begun{0};
    const Status status = parallel_for(4, 4, [&](uint64_t item, unsigned) -> Status {
      ++begun;
      while (begun < 4) std::this_thread::yield();
      return Error{Code::kIo, std::to_string(item)};
    });
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message, "0");
  }
}

TEST(ParallelFor, AllocationFailureReachesTheCaller) {
  for (const unsigned threads : {1U, 3U}) {
    EXPECT_THROW((void)parallel_for(9, threads,
                                    [](uint64_t item, unsigned) -> Status {
                                      if (item == 4) throw std::bad_alloc();
                                      return {};
                                    }),
                 std::bad_alloc);
  }
}

TEST(AvailableThreads, IsAtLeastOne) {
  EXPECT_GE(available_threads(), 1U);
}

}  // namespace
}  // namespace siltstone
