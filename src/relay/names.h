// Which object a request means, and what could prove it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace siltstone::relay {

enum class NameKind : uint8_t {
  kRepo,       // repo.json: sealed
  kCommit,     // log/: sealed
  kReference,  // tags/, branches/: sealed
  kHead,       // head/: a hint that is replaced, proven by nothing
  kAddressed,  // schema/, files/: named by their own hash
  kData,       // obj/: proven by the commit that names them
};

struct ObjectName {
  NameKind kind = NameKind::kRepo;
  std::string text;     // as the store knows it
  std::string branch;   // commits and data
  uint64_t seq = 0;     // commits and data
  std::string attempt;  // data
  std::string sha256;   // addressed objects

  // Small, and proven by their own text.
  bool sealed() const {
    return kind == NameKind::kRepo || kind == NameKind::kCommit || kind == NameKind::kReference;
  }
};

// Empty for every other name: a bucket may hold more than a relay can prove.
std::optional<ObjectName> parse_object_name(std::string_view text);

ObjectName repo_name();
ObjectName commit_name(std::string_view branch, uint64_t seq);

}  // namespace siltstone::relay
