// Tensors as the library sees them: a name, a dtype, a shape, and bytes on some device.
//
// Views never own. Elements are opaque words: nothing here or below interprets them as numbers, but
// for the one cast that ViewOptions (siltstone/checkpoint.h) offers.
// Threads: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace siltstone {

// All dtypes of the safetensors format. Values are pinned: section headers store them.
enum class DType : uint8_t {
  kBool = 1,
  kF4 = 2,
  kF6_E2M3 = 3,
  kF6_E3M2 = 4,
  kU8 = 5,
  kI8 = 6,
  kF8_E5M2 = 7,
  kF8_E4M3 = 8,
  kF8_E8M0 = 9,
  kF8_E4M3FNUZ = 10,
  kF8_E5M2FNUZ = 11,
  kI16 = 12,
  kU16 = 13,
  kF16 = 14,
  kBF16 = 15,
  kI32 = 16,
  kU32 = 17,
  kF32 = 18,
  kC64 = 19,
  kF64 = 20,
  kI64 = 21,
  kU64 = 22,
};

// How the bit patterns of a dtype are put into the monotone order that steps are counted in.
enum class WordOrder : uint8_t {
  kUnsigned,       // the word itself
  kSigned,         // two's complement: flip the top bit
  kSignMagnitude,  // floating point: flip all bits if the sign is set, else the sign bit
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as safetensors headers spell it
  uint8_t bits;           // of one element: 4, 6, 8, 16, 32 or 64
  uint8_t word_bytes;     // of the words that are compared and moved: 1, 2, 4 or 8
  WordOrder order;
  uint8_t mantissa_bits = 0;  // of floating-point words: the exponent's field begins above them
};

// nullptr if the code or name is not one of the format's.
const DTypeInfo* find_dtype(DType dtype);
const DTypeInfo* find_dtype(std::string_view safetensors_name);
std::span<const DTypeInfo> all_dtypes();

// REQUIRES: dtype is one of the enumerators.
const DTypeInfo& dtype_info(DType dtype);

// Bytes of a tensor of this dtype and shape; empty on overflow of 2^63 - 1, a negative dimension,
// or a sub-byte dtype whose elements do not fill whole bytes.
std::optional<uint64_t> tensor_size_bytes(DType dtype, std::span<const int64_t> shape);

struct Device {
  enum Kind : uint8_t { kCpu = 0, kCuda = 1 };
  Kind kind = kCpu;
  int index = 0;
};

struct TensorInfo {
  std::string name;  // UTF-8, at most 512 bytes
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;  // rank 0 to 16
  uint64_t size_bytes = 0;

  bool operator==(const TensorInfo&) const = default;
};

// A tensor's bytes: contiguous, row-major, little-endian, of size_bytes(dtype, shape).
struct TensorView {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  Device device;
};

struct MutTensorView {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  std::span<std::byte> bytes;
  Device device;
};

}  // namespace siltstone
