#pragma once

#include "siltstone/codec.h"

namespace siltstone {

EncodedTile encode_classes(const TileChange& change);

}  // namespace siltstone
