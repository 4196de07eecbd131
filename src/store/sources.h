// How stores read the content that they are given, and bytes in memory as such content.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "siltstone/store.h"

namespace siltstone {

// No store asks a source for more at once, so that content can be made while it is stored.
inline constexpr uint64_t kMaxPieceBytes = uint64_t{4} << 20;

// A view: the bytes must outlive it.
class SpanSource final : public ByteSource {
 public:
  explicit SpanSource(ByteSpan bytes) : bytes_(bytes) {}
  explicit SpanSource(std::string_view text) : bytes_(as_bytes(text)) {}

  uint64_t size_bytes() const override { return bytes_.size(); }
  Status read(uint64_t offset_bytes, MutByteSpan out) const override {
    std::ranges::copy(bytes_.subspan(offset_bytes, out.size()), out.begin());
    return {};
  }

 private:
  ByteSpan bytes_;
};

}  // namespace siltstone
