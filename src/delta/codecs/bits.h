// Bit strings, least significant bit first.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace siltstone {

// Writes into memory that the caller bounds.
class BitWriter {
 public:
  static constexpr size_t kTailBytes = 8;

  // REQUIRES: room for all bits that will be put, and kTailBytes more.
  explicit BitWriter(std::byte* out) : out_(out) {}

  // REQUIRES: count <= 56 and value < 2^count.
  void put(uint64_t value, unsigned count) {
    pending_ |= value << pending_bits_;
    pending_bits_ += count;
    store_le(out_, pending_);
    out_ += pending_bits_ / 8;
    pending_ >>= pending_bits_ & ~7U;
    pending_bits_ &= 7;
  }
  void put_long(uint64_t value, unsigned count) {
    if (count > 32) {
      put(value & 0xFFFFFFFF, 32);
      value >>= 32;
      count -= 32;
    }
    put(value, count);
  }
  // One past the last byte, which zeros fill.
  std::byte* end() const { return out_ + (pending_bits_ > 0 ? 1 : 0); }

 private:
  std::byte* out_;
  uint64_t pending_ = 0;
  unsigned pending_bits_ = 0;  // below 8 between calls
};

// Reads past the end give zeros: the caller compares used_bits() with what there was.
class BitReader {
 public:
  static constexpr size_t kTailBytes = 8;

  // REQUIRES: kTailBytes zero bytes follow `bytes` in memory.
  explicit BitReader(ByteSpan bytes) : data_(bytes.data()), bits_(bytes.size() * 8) {}

  uint64_t used_bits() const { return used_; }
  bool overrun() const { return used_ > bits_; }

  // REQUIRES: count <= 56.
  uint64_t get(unsigned count) {
    const uint64_t at = used_ < bits_ ? used_ : bits_;
    const uint64_t window = load_le<uint64_t>(data_ + at / 8) >> (at % 8);
    used_ += count;
    return window & ((uint64_t{1} << count) - 1);
  }
  uint64_t get_long(unsigned count) {
    if (count <= 32) return get(count);
    const uint64_t low = get(32);
    return low | get(count - 32) << 32;
  }

 private:
  const std::byte* data_;
  uint64_t bits_;
  uint64_t used_ = 0;
};

}  // namespace siltstone
