// The codecs of docs/format/delta_pack.md, dense_delta in dense.cc and momentum in class.cc, the
// others in the file of their name; table.cc lists them.
#pragma once

#include "siltstone/codec.h"

namespace siltstone {

const Codec& raw_codec();          // id 1
const Codec& step_codec();         // id 2
const Codec& dense_codec();        // id 3
const Codec& class_codec();        // id 4
const Codec& dense_delta_codec();  // id 5
const Codec& momentum_codec();     // id 6

}  // namespace siltstone
