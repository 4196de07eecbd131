#include <algorithm>
#include <array>
#include <numeric>

#include "base/bytes.h"
#include "siltstone/tensor.h"

namespace siltstone {
namespace {

using enum WordOrder;

// In order of DType: find_dtype(DType) indexes it.
constexpr std::array<DTypeInfo, 22> kDTypes = {{
    {DType::kBool, "BOOL", 8, 1, kUnsigned},
    {DType::kF4, "F4", 4, 1, kUnsigned},
    {DType::kF6_E2M3, "F6_E2M3", 6, 1, kUnsigned},
    {DType::kF6_E3M2, "F6_E3M2", 6, 1, kUnsigned},
    {DType::kU8, "U8", 8, 1, kUnsigned},
    {DType::kI8, "I8", 8, 1, kSigned},
    {DType::kF8_E5M2, "F8_E5M2", 8, 1, kSignMagnitude, 2},
    {DType::kF8_E4M3, "F8_E4M3", 8, 1, kSignMagnitude, 3},
    {DType::kF8_E8M0, "F8_E8M0", 8, 1, kUnsigned},
    {DType::kF8_E4M3FNUZ, "F8_E4M3FNUZ", 8, 1, kSignMagnitude, 3},
    {DType::kF8_E5M2FNUZ, "F8_E5M2FNUZ", 8, 1, kSignMagnitude, 2},
    {DType::kI16, "I16", 16, 2, kSigned},
    {DType::kU16, "U16", 16, 2, kUnsigned},
    {DType::kF16, "F16", 16, 2, kSignMagnitude, 10},
    {DType::kBF16, "BF16", 16, 2, kSignMagnitude, 7},
    {DType::kI32, "I32", 32, 4, kSigned},
    {DType::kU32, "U32", 32, 4, kUnsigned},
    {DType::kF32, "F32", 32, 4, kSignMagnitude, 23},
    {DType::kC64, "C64", 64, 8, kUnsigned},
    {DType::kF64, "F64", 64, 8, kSignMagnitude, 52},
    {DType::kI64, "I64", 64, 8, kSigned},
    {DType::kU64, "U64", 64, 8, kUnsigned},
}};

constexpr bool in_order_of_code() {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (static_cast<size_t>(kDTypes[i].dtype) != i + 1) return false;
  }
  return true;
}
static_assert(in_order_of_code());

constexpr uint64_t kMaxSizeBytes = INT64_MAX;

}  // namespace

std::span<const DTypeInfo> all_dtypes() {
  return kDTypes;
}

const DTypeInfo* find_dtype(DType dtype) {
  const auto code = static_cast<size_t>(dtype);
  if (code == 0 || code > kDTypes.size()) return nullptr;
  return &kDTypes[code - 1];
}

const DTypeInfo* find_dtype(std::string_view safetensors_name) {
  const auto* found = std::ranges::find(kDTypes, safetensors_name, &DTypeInfo::name);
  return found == kDTypes.end() ? nullptr : found;
}

const DTypeInfo& dtype_info(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype) - 1];
}

std::optional<uint64_t> tensor_size_bytes(DType dtype, std::span<const int64_t> shape) {
  // A zero dimension does not excuse the others: strides over them must not overflow either.
  uint64_t elements = 1;
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    if (dimension == 0) {
      empty = true;
    } else if (!checked_mul(elements, static_cast<uint64_t>(dimension), &elements)) {
      return std::nullopt;
    }
  }
  // The fewest elements that fill whole bytes, so that no product in bits can overflow.
  const unsigned bits = dtype_info(dtype).bits;
  const unsigned group_elements = 8 / std::gcd(bits, 8U);
  const unsigned group_bytes = bits * group_elements / 8;
  if (!empty && elements % group_elements != 0) return std::nullopt;
  uint64_t size_bytes = 0;
  if (!checked_mul(ceil_div(elements, group_elements), group_bytes, &size_bytes) ||
      size_bytes > kMaxSizeBytes) {
    return std::nullopt;
  }
  return empty ? 0 : size_bytes;
}

}  // namespace siltstone
