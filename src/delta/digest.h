// The additive 128-bit digest of a tensor and the root of a state (docs/format/digest.md).
//
// A tensor's sum adds a keyed value per 8-byte word of its bytes, so it can be computed over slices
// in any order, on any number of threads, and updated from the changed words alone. It finds
// errors; it is no defence against an adversary, for whom objects carry SHA-256.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "siltstone/tensor.h"

namespace siltstone {

struct Sum128 {
  uint64_t a = 0;
  uint64_t b = 0;

  Sum128& operator+=(const Sum128& other) {
    a += other.a;
    b += other.b;
    return *this;
  }
  Sum128& operator-=(const Sum128& other) {
    a -= other.a;
    b -= other.b;
    return *this;
  }
  friend Sum128 operator+(Sum128 x, const Sum128& y) { return x += y; }
  friend Sum128 operator-(Sum128 x, const Sum128& y) { return x -= y; }
  bool operator==(const Sum128&) const = default;
};

// 32 hexadecimal digits: a, then b, each little-endian.
std::string to_hex(const Sum128& sum);
bool sum_from_hex(std::string_view text, Sum128* out);

// Sum of the words of `bytes`, which start at byte `offset_bytes` of the tensor; a last partial
// word is padded with zeros. REQUIRES: offset_bytes % 8 == 0; bytes.size() % 8 == 0 unless `bytes`
// end where the tensor ends.
Sum128 digest_bytes(ByteSpan bytes, uint64_t offset_bytes);

// digest_bytes(new) - digest_bytes(old), visiting only the words that hold the given elements.
// `positions` (ascending) count words of `word_bytes` from the start of both buffers, which are of
// equal size and start at byte `offset_bytes` of the tensor. REQUIRES as above.
Sum128 digest_change(ByteSpan old_bytes, ByteSpan new_bytes, std::span<const uint16_t> positions,
                     unsigned word_bytes, uint64_t offset_bytes);

// One row of a state: what its root is computed from.
struct StateRow {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  Sum128 sum;
};

// SHA-256, in hexadecimal, over the rows. REQUIRES: sorted by name (bytes), names unique.
std::string state_root(std::span<const StateRow> rows);

}  // namespace siltstone
