#pragma once

#include "siltstone/codec.h"

namespace siltstone {

// As codec class codes it or, with kMomentumContexts contexts, as codec momentum: then
// `change.earlier_words` are looked at.
EncodedTile encode_classes(const TileChange& change, unsigned contexts);

}  // namespace siltstone
