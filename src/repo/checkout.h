// Writing a whole version into an empty folder.
#pragma once

#include <filesystem>
#include <vector>

#include "delta/digest.h"
#include "repo/bucket.h"
#include "repo/way_back.h"

namespace siltstone {

// Writes and proves every file of the version below `folder`, which exists and is empty; durable
// except for the folder's own entry. Returns the tensors' sums; fills in `report`. `back`, which
// may be null, is told how to go back from there.
Result<std::vector<Sum128>> write_version(Bucket& bucket, const Commit& commit,
                                          const std::filesystem::path& folder,
                                          const CheckoutOptions& options, WayBackWriter* back,
                                          CheckoutReport* report);

}  // namespace siltstone
