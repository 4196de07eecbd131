// The comparison of siltstone/bench.h for codecs that need not stand in the table.
#pragma once

#include <vector>

#include "siltstone/bench.h"
#include "siltstone/codec.h"

namespace siltstone {

// `codecs` instead of options.codecs; nullptr is kAutomatic. Sections are decoded by the codec of
// the table that has their id.
Result<CodecComparison> compare_codecs(const Checkpoint& from, const Checkpoint& to,
                                       const std::vector<const Codec*>& codecs,
                                       const CompareCodecsOptions& options);

}  // namespace siltstone
