// A choice of address that compilers leave a choice: they turn the plain conditional into a branch,
// which at a few per cent of changes is mispredicted all the time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace siltstone {

// Always inlined: files with different instruction set flags share it (sets.h).
[[gnu::always_inline]] inline std::byte* choose_address(bool first, std::byte* a, std::byte* b) {
  uint64_t mask = uint64_t{0} - static_cast<uint64_t>(first);
  asm("" : "+r"(mask));  // hides that it is one of two values
  const auto from_b = reinterpret_cast<uintptr_t>(b);
  return reinterpret_cast<std::byte*>(from_b ^ ((reinterpret_cast<uintptr_t>(a) ^ from_b) & mask));
}

}  // namespace siltstone
