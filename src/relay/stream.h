// Reading one object of a store from its first byte to its last.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/bytes.h"
#include "siltstone/result.h"
#include "siltstone/store.h"

namespace siltstone::relay {

struct StreamOptions {
  unsigned transfers = 1;  // pieces in flight
  uint64_t piece_bytes = uint64_t{4} << 20;
};

// Calls `take` with the first `length_bytes` of the object, in order, on the calling thread; its
// error ends the call. Holds `transfers` pieces in memory.
Status stream_object(Store& store, const std::string& name, uint64_t length_bytes,
                     const StreamOptions& options, const std::function<Status(ByteSpan)>& take);

}  // namespace siltstone::relay
