// Cheap guesses of encoded sizes from a sample of the change, in integer arithmetic only, so that
// every machine chooses the same codec.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "siltstone/codec.h"

namespace siltstone {

uint64_t guess_step_bytes(const TileChange& change);
uint64_t guess_class_bytes(const TileChange& change);

// For codecs that store `code` of every element, byte plane by byte plane.
uint64_t guess_plane_bytes(const TileChange& change,
                           const std::function<uint64_t(uint64_t element)>& code);

// Whether an order-0 coder would save less than about a bit in eighty.
bool looks_random(ByteSpan bytes);

}  // namespace siltstone
