// Names of the objects in a bucket (docs/format/repository.md, "Objects").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace siltstone {

inline constexpr std::string_view kRepoKey = "repo.json";

std::string commit_key(std::string_view branch, uint64_t seq);
std::string head_key(std::string_view branch);
std::string branch_key(std::string_view branch);
std::string tag_key(std::string_view tag);
std::string schema_key(std::string_view sha256);
std::string companion_key(std::string_view sha256);
// The folder of one publish attempt's data objects, with a slash at its end.
std::string attempt_prefix(std::string_view branch, uint64_t epoch, uint64_t seq,
                           std::string_view attempt);

}  // namespace siltstone
