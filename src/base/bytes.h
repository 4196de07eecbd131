// Little-endian loads and stores, checked arithmetic, and byte-string helpers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace siltstone {

static_assert(std::endian::native == std::endian::little, "only little-endian hosts are supported");

using ByteSpan = std::span<const std::byte>;
using MutByteSpan = std::span<std::byte>;

template <class T>
T load_le(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void store_le(void* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

inline bool checked_add(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}
inline bool checked_mul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}

// REQUIRES: multiple is a power of two.
constexpr uint64_t align_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) & ~(multiple - 1);
}
constexpr uint64_t ceil_div(uint64_t value, uint64_t by) {
  return value / by + (value % by != 0);
}

inline ByteSpan as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Lower-case hexadecimal.
std::string to_hex(ByteSpan bytes);
std::string to_hex(uint64_t value);  // 16 digits
// False unless `text` is exactly 2 * out.size() lower-case hexadecimal digits.
bool from_hex(std::string_view text, MutByteSpan out);

// "1.50 GiB", for people.
std::string format_bytes(uint64_t bytes);

}  // namespace siltstone
