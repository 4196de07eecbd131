// How long calls tell what they have done, and learn that they are to stop.
#pragma once

#include "siltstone/repository.h"

namespace siltstone {

// `progress` may be empty.
inline Status tell(const Progress& progress, uint64_t done_bytes, uint64_t total_bytes) {
  if (!progress || progress(done_bytes, total_bytes)) return {};
  return Error{Code::kCancelled, "stopped because the caller asked for it"};
}

}  // namespace siltstone
