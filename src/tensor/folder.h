// What a model folder holds, sorted into weights, companions and the rest by the rules of
// docs/format/checkpoint.md, "Folders".
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/checkpoint.h"
#include "siltstone/result.h"

namespace siltstone {

inline constexpr uint64_t kMaxCompanionBytes = uint64_t{64} << 20;
inline constexpr size_t kMaxCompanions = 1'000;
inline constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
inline constexpr int kMaxFolderDepth = 4;
inline constexpr size_t kMaxFolderEntries = 100'000;

struct FolderListing {
  std::vector<std::string> weights;  // names of the .safetensors files in the folder itself
  std::vector<CompanionFile> companions;
  std::vector<std::string> skipped;  // "path (reason)"
  std::vector<std::string> foreign;  // paths of weights in other formats, for the error message
};

// Every list is sorted by path. REQUIRES: `folder` is a directory.
Result<FolderListing> list_folder(const std::filesystem::path& folder);

}  // namespace siltstone
