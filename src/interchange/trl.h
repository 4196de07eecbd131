// Names in the folders of TRL's prototype.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace siltstone {

inline constexpr std::string_view kTrlAnchors = "anchors";
inline constexpr std::string_view kTrlDeltas = "deltas";
inline constexpr std::string_view kTrlPrefix = "step_";
inline constexpr std::string_view kTrlSuffix = ".safetensors";
inline constexpr std::string_view kTrlFormat = "sparse_weight_patch";
inline constexpr std::string_view kTrlAnchorFormat = "anchor_checkpoint";  // of the earliest writer
inline constexpr std::string_view kTrlRaw = "raw";
inline constexpr std::string_view kTrlGaps = "gap_delta";
// The one tensor of an earlier delta in which nothing changed.
inline constexpr std::string_view kTrlEmptyDelta = "__empty_delta__";

// "anchors/step_000007.safetensors"
std::string trl_name(uint64_t number, bool anchor);

}  // namespace siltstone
