// Range and Prefer, as clients of all kinds write them.
#include "relay/request.h"

#include <gtest/gtest.h>

namespace siltstone::relay {
namespace {

using Kind = RangeAnswer::Kind;

void expect_part(const char* header, uint64_t length, uint64_t offset, uint64_t count) {
  const RangeAnswer answer = answer_range(header, length);
  EXPECT_EQ(answer.kind, Kind::kPart) << header;
  EXPECT_EQ(answer.range.offset_bytes, offset) << header;
  EXPECT_EQ(answer.range.length_bytes, count) << header;
}

TEST(RangeTest, OneRange) {
  expect_part("bytes=0-0", 10, 0, 1);
  expect_part("bytes=2-5", 10, 2, 4);
  expect_part("bytes=2-", 10, 2, 8);
  expect_part("bytes=-3", 10, 7, 3);
  expect_part("bytes=-30", 10, 0, 10);
  expect_part("bytes=9-99999999999999999999999", 10, 9, 1);
  expect_part(" bytes=0-18446744073709551615 ", 10, 0, 10);
}

TEST(RangeTest, OutsideTheObject) {
  for (const char* header : {"bytes=10-", "bytes=10-12", "bytes=18446744073709551615-", "bytes=-0",
                             "bytes=99999999999999999999-"}) {
    EXPECT_EQ(answer_range(header, 10).kind, Kind::kOutside) << header;
  }
  EXPECT_EQ(answer_range("bytes=0-", 0).kind, Kind::kOutside);
  EXPECT_EQ(answer_range("bytes=-1", 0).kind, Kind::kOutside);
}

TEST(RangeTest, WhatIsNoneIsIgnored) {
  EXPECT_EQ(answer_range(nullptr, 10).kind, Kind::kWhole);
  for (const char* header :
       {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1", "items=0-1",
        "bytes=0-1,3-4", "bytes=--1", "bytes=1-2-3", "bytes=+1-2", "bytes=0x1-2"}) {
    const RangeAnswer answer = answer_range(header, 10);
    EXPECT_EQ(answer.kind, Kind::kWhole) << header;
    EXPECT_EQ(answer.range.length_bytes, 10U) << header;
  }
}

TEST(PreferTest, Wait) {
  EXPECT_EQ(preferred_wait_seconds("wait=10"), 10U);
  EXPECT_EQ(preferred_wait_seconds("respond-async, wait=7"), 7U);
  EXPECT_EQ(preferred_wait_seconds("wait=7;x=1 , a"), 7U);
  EXPECT_EQ(preferred_wait_seconds("wait=999999999999999999999999"), UINT64_MAX);
  for (const char* header :
       {"", "wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "awaits=1", ","}) {
    EXPECT_FALSE(preferred_wait_seconds(header)) << header;
  }
  EXPECT_FALSE(preferred_wait_seconds(nullptr));
}

}  // namespace
}  // namespace siltstone::relay
