// What one look at the store answers.
#include "relay/absences.h"

#include <gtest/gtest.h>

namespace siltstone::relay {
namespace {

using Clock = Absences::Clock;
using std::chrono::hours;

TEST(AbsencesTest, OneLookAnswersForAllLaterVersions) {
  Absences absences(hours(1));
  absences.present(commit_name("main", 4));
  absences.absent(commit_name("main", 7), Clock::now());
  EXPECT_TRUE(absences.holds(commit_name("main", 7)));
  EXPECT_TRUE(absences.holds(commit_name("main", 900)));
  EXPECT_FALSE(absences.holds(commit_name("main", 6)));
  EXPECT_FALSE(absences.holds(commit_name("side", 7)));
  absences.absent(commit_name("main", 9), Clock::now());
  EXPECT_TRUE(absences.holds(commit_name("main", 8)));
  absences.absent(commit_name("main", 5), Clock::now());
  EXPECT_TRUE(absences.holds(commit_name("main", 5)));
  absences.present(commit_name("main", 5));
  EXPECT_EQ(absences.newest("main"), 5U);
  EXPECT_FALSE(absences.holds(commit_name("main", 5)));
  EXPECT_FALSE(absences.holds(commit_name("main", 6)));
  EXPECT_TRUE(absences.holds(commit_name("main", 7)));  // was looked at itself
}

// A branch that forked at main@5 has no version below 6, now or ever.
TEST(AbsencesTest, NothingFollowsWhileNoVersionIsKnown) {
  Absences absences(hours(1));
  absences.absent(commit_name("side", 0), Clock::now());
  EXPECT_TRUE(absences.holds(commit_name("side", 0)));
  EXPECT_FALSE(absences.holds(commit_name("side", 6)));
  absences.present(commit_name("side", 6));
  absences.absent(commit_name("side", 1), Clock::now());
  EXPECT_FALSE(absences.holds(commit_name("side", 7)));
}

TEST(AbsencesTest, KnowledgeAges) {
  Absences absences(std::chrono::seconds(10));
  absences.present(commit_name("main", 0));
  absences.absent(commit_name("main", 1), Clock::now() - hours(1));
  EXPECT_FALSE(absences.holds(commit_name("main", 1)));
  EXPECT_FALSE(absences.holds(commit_name("main", 2)));
}

TEST(AbsencesTest, MemoryIsBounded) {
  Absences absences(hours(1));
  for (uint64_t i = 0; i < 20000; ++i) {
    absences.absent(commit_name("b" + std::to_string(i), i), Clock::now());
    absences.present(commit_name("c" + std::to_string(i), i));
  }
  EXPECT_TRUE(absences.holds(commit_name("b19999", 19999)));
  EXPECT_FALSE(absences.holds(commit_name("b0", 0)));
  EXPECT_FALSE(absences.newest("c0"));
}

}  // namespace
}  // namespace siltstone::relay
