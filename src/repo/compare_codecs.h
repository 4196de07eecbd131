// The comparison of siltstone/bench.h for codecs that need not stand in the table.
#pragma once

#include <vector>

#include "siltstone/bench.h"
#include "siltstone/codec.h"

namespace siltstone {

// How sections are made: by one codec, or by the one that is chosen.
struct Coding {
  std::string_view name;
  const Codec* codec = nullptr;  // null: chosen
  Effort effort = Effort::kDefault;
};

// `codings` instead of options.codecs. Sections are decoded by the codec of the table that has
// their id.
Result<CodecComparison> compare_codecs(const Checkpoint& from, const Checkpoint& to,
                                       const std::vector<Coding>& codings,
                                       const CompareCodecsOptions& options);

}  // namespace siltstone
