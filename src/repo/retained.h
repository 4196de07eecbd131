// Inside of RetainedBase: the last committed state in memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "repo/base.h"
#include "siltstone/repository.h"

namespace siltstone {

// Its bytes as a known state; `bytes` null while it is empty. Borrows `retained`.
KnownState retained_state(const RetainedBase& retained);

// Makes it hold the state that was just committed. Only what differs is written.
void promote(RetainedBase& retained, std::span<const TensorInfo> tensors, const StateBytes& next,
             const std::vector<Sum128>& sums, const VersionId& id, const std::string& root,
             std::optional<WayBack> back, unsigned threads);

}  // namespace siltstone
