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

  // The root of the version before the known state, if the first link looks at it.
  const std::string& earlier_root() const;
};

// A state that the caller holds.
struct KnownRoots {
  std::string root;
  std::string earlier_root;  // of the version before it, if that is known too
};

// The path of fewest bytes (then fewest objects) to `target`, from an anchor or the known state. A
// delta that looks at the version before its own start is no first link, unless that version is
// known. kCorrupt if no anchor can be reached and the known state is not on the way.
Result<Path> plan_path(History& history, const Commit& target,
                       const std::optional<KnownRoots>& known);

}  // namespace siltstone
