// The codecs of docs/format/delta_pack.md, each in the file of its name; table.cc lists them.
#pragma once

#include "siltstone/codec.h"

namespace siltstone {

const Codec& raw_codec();    // id 1
const Codec& step_codec();   // id 2
const Codec& dense_codec();  // id 3
const Codec& class_codec();  // id 4

}  // namespace siltstone
