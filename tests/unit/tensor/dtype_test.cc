#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>

#include "siltstone/tensor.h"

namespace siltstone {
namespace {

TEST(DType, TableHasEveryCodeOnce) {
  ASSERT_EQ(all_dtypes().size(), 22U);
  std::map<std::string_view, int> names;
  for (const DTypeInfo& info : all_dtypes()) {
    EXPECT_EQ(find_dtype(info.dtype), &info);
    EXPECT_EQ(find_dtype(info.name), &info);
    EXPECT_EQ(&dtype_info(info.dtype), &info);
    EXPECT_EQ(info.word_bytes, info.bits < 8 ? 1 : info.bits / 8) << info.name;
    ++names[info.name];
  }
  EXPECT_EQ(names.size(), 22U);
}

TEST(DType, UnknownCodesAndNamesAreNotFound) {
  EXPECT_EQ(find_dtype(static_cast<DType>(0)), nullptr);
  EXPECT_EQ(find_dtype(static_cast<DType>(23)), nullptr);
  EXPECT_EQ(find_dtype(static_cast<DType>(255)), nullptr);
  EXPECT_EQ(find_dtype(""), nullptr);
  EXPECT_EQ(find_dtype("bf16"), nullptr);
  EXPECT_EQ(find_dtype("F8"), nullptr);
  EXPECT_EQ(find_dtype("BF16 "), nullptr);
}

TEST(DType, OrdersFollowTheNumbers) {
  const std::map<std::string_view, WordOrder> expected = {
      {"BOOL", WordOrder::kUnsigned},
      {"F4", WordOrder::kUnsigned},
      {"F6_E2M3", WordOrder::kUnsigned},
      {"F6_E3M2", WordOrder::kUnsigned},
      {"U8", WordOrder::kUnsigned},
      {"I8", WordOrder::kSigned},
      {"F8_E5M2", WordOrder::kSignMagnitude},
      {"F8_E4M3", WordOrder::kSignMagnitude},
      {"F8_E8M0", WordOrder::kUnsigned},
      {"F8_E4M3FNUZ", WordOrder::kSignMagnitude},
      {"F8_E5M2FNUZ", WordOrder::kSignMagnitude},
      {"I16", WordOrder::kSigned},
      {"U16", WordOrder::kUnsigned},
      {"F16", WordOrder::kSignMagnitude},
      {"BF16", WordOrder::kSignMagnitude},
      {"I32", WordOrder::kSigned},
      {"U32", WordOrder::kUnsigned},
      {"F32", WordOrder::kSignMagnitude},
      {"C64", WordOrder::kUnsigned},
      {"F64", WordOrder::kSignMagnitude},
      {"I64", WordOrder::kSigned},
      {"U64", WordOrder::kUnsigned},
  };
  ASSERT_EQ(expected.size(), all_dtypes().size());
  for (const DTypeInfo& info : all_dtypes()) {
    ASSERT_TRUE(expected.contains(info.name)) << info.name;
    EXPECT_EQ(info.order, expected.at(info.name)) << info.name;
  }
}

std::optional<uint64_t> size_of(DType dtype, std::vector<int64_t> shape) {
  return tensor_size_bytes(dtype, shape);
}

TEST(TensorSizeBytes, CountsBytes) {
  EXPECT_EQ(size_of(DType::kF32, {}), 4U);
  EXPECT_EQ(size_of(DType::kBF16, {3, 5}), 30U);
  EXPECT_EQ(size_of(DType::kC64, {2}), 16U);
  EXPECT_EQ(size_of(DType::kBool, {7}), 7U);
  EXPECT_EQ(size_of(DType::kF64, {3, 0, 5}), 0U);
}

TEST(TensorSizeBytes, SubByteElementsFillWholeBytes) {
  EXPECT_EQ(size_of(DType::kF4, {3, 2}), 3U);
  EXPECT_EQ(size_of(DType::kF4, {3}), std::nullopt);
  EXPECT_EQ(size_of(DType::kF4, {}), std::nullopt);
  EXPECT_EQ(size_of(DType::kF4, {0, 3}), 0U);
  for (const DType dtype : {DType::kF6_E2M3, DType::kF6_E3M2}) {
    EXPECT_EQ(size_of(dtype, {4}), 3U);
    EXPECT_EQ(size_of(dtype, {2, 6}), 9U);
    for (const int64_t partial : {1, 2, 3, 5, 6, 7})
      EXPECT_EQ(size_of(dtype, {partial}), std::nullopt);
  }
}

TEST(TensorSizeBytes, HoldsTheBound) {
  constexpr int64_t kMax = INT64_MAX;
  EXPECT_EQ(size_of(DType::kU8, {kMax}), static_cast<uint64_t>(kMax));
  EXPECT_EQ(size_of(DType::kU8, {kMax, 2}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {int64_t{1} << 62, 2}), std::nullopt);
  EXPECT_EQ(size_of(DType::kF64, {(int64_t{1} << 60) - 1}), (uint64_t{1} << 63) - 8);
  EXPECT_EQ(size_of(DType::kF64, {int64_t{1} << 60}), std::nullopt);
  EXPECT_EQ(size_of(DType::kF64, {int64_t{1} << 61}), std::nullopt);
  EXPECT_EQ(size_of(DType::kF4, {kMax - 1}), static_cast<uint64_t>(kMax / 2));
  EXPECT_EQ(size_of(DType::kU8, {int64_t{1} << 32, int64_t{1} << 32}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {int64_t{1} << 32, int64_t{1} << 32, 0}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {0, int64_t{1} << 32, int64_t{1} << 32}), std::nullopt);
}

TEST(TensorSizeBytes, NegativeDimensionsHaveNoSize) {
  EXPECT_EQ(size_of(DType::kU8, {-1}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {-1, -1}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {0, -1}), std::nullopt);
  EXPECT_EQ(size_of(DType::kU8, {INT64_MIN}), std::nullopt);
}

}  // namespace
}  // namespace siltstone
