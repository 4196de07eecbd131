// What the headers of a request ask for.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace siltstone::relay {

struct ByteRange {
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
};

struct RangeAnswer {
  enum class Kind : uint8_t {
    kWhole,    // none was asked for, or one that a server may ignore
    kPart,     // `range` lies in the object
    kOutside,  // nothing of it does: status 416
  };
  Kind kind = Kind::kWhole;
  ByteRange range;  // of kWhole: everything
};

// `header` is the value of Range, null if there is none. Several ranges, other units and what is no
// range are ignored (RFC 9110, 14.2).
RangeAnswer answer_range(const char* header, uint64_t length_bytes);

// N of "wait=N" in the value of Prefer (RFC 7240); empty if it is not there or no number.
std::optional<uint64_t> preferred_wait_seconds(const char* header);

}  // namespace siltstone::relay
