#include "siltstone/result.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/try.h"

namespace siltstone {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error{Code::kInvalidArgument, std::to_string(value) + " is odd"};
  return value / 2;
}

Result<std::string> quarter(int value) {
  SILT_ASSIGN(const int once, half(value));
  SILT_ASSIGN(const int twice, half(once).in("second half"));
  return std::to_string(twice);
}

Status only_even(int value) {
  SILT_TRY(half(value));
  return {};
}

TEST(ResultTest, CarriesValuesAndErrors) {
  EXPECT_EQ(*quarter(8), "2");
  EXPECT_EQ(quarter(7).error().message, "7 is odd");
  EXPECT_EQ(quarter(6).error().message, "second half: 3 is odd");
  EXPECT_EQ(quarter(6).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(only_even(2));
  EXPECT_EQ(only_even(3).in("check").error().message, "check: 3 is odd");
  EXPECT_TRUE(Status().in("check"));
}

TEST(ResultTest, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 5);
}

TEST(CodeName, EveryCodeHasOne) {
  for (int code = 1; code <= 12; ++code) EXPECT_NE(code_name(static_cast<Code>(code)), "unknown");
  EXPECT_EQ(code_name(static_cast<Code>(0)), "unknown");
  EXPECT_EQ(code_name(static_cast<Code>(13)), "unknown");
}

}  // namespace
}  // namespace siltstone
