// The cheapest way to a version: from a known state or an anchor, along deltas.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "repo/history.h"

namespace siltstone {

struct Path {
  std::optional<Commit> anchor;  // empty: the path starts at the known state
  std::vector<Commit> links;     // commits whose deltas are applied, oldest first
  uint64_t bytes = 0;
  uint64_t objects = 0;
};

// The path of fewest bytes (then fewest objects) to `target`; `known_root` is the root of a state
// that the caller holds. kCorrupt if no anchor can be reached and the known state is not on the
// way.
Result<Path> plan_path(History& history, const Commit& target,
                       const std::optional<std::string>& known_root);

}  // namespace siltstone
