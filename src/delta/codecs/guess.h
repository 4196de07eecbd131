// Cheap guesses of encoded sizes from a sample of the change, in integer arithmetic only, so that
// every machine chooses the same codec.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "siltstone/codec.h"

namespace siltstone {

uint64_t guess_step_bytes(const TileChange& change);
uint64_t guess_class_bytes(const TileChange& change);

// For codecs that store codes of all elements as byte planes: `split` writes those of `n` elements
// from `begin` on, plane after plane.
using SplitPlanes = std::function<void(uint64_t begin, uint64_t n, std::byte* planes)>;
uint64_t guess_plane_bytes(const TileChange& change, const SplitPlanes& split);

// Whether an order-0 coder would save less than about a bit in eighty.
bool looks_random(ByteSpan bytes);

}  // namespace siltstone
