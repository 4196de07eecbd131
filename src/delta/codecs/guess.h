// Cheap guesses of encoded sizes from a sample of the change, in integer arithmetic only, so that
// every machine chooses the same codec.
#pragma once

#include "siltstone/codec.h"

namespace siltstone {

uint64_t guess_step_bytes(const TileChange& change);
uint64_t guess_dense_bytes(const TileChange& change);

}  // namespace siltstone
