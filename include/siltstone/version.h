// A Version is one immutable commit of a branch: what it is called, what it follows, and the root
// that says what its weights are.
//
// Two identities: (branch, seq) orders and finds; `root` is the digest of the full state, equal
// exactly when every tensor's name, dtype, shape and bytes are equal. Threads: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/result.h"

namespace siltstone {

struct VersionId {
  std::string branch;
  uint64_t seq = 0;
  std::string commit_hash;  // SHA-256 of the commit's stored bytes, hexadecimal

  std::string name() const { return branch + "@" + std::to_string(seq); }
  bool operator==(const VersionId&) const = default;
};

enum class ArtifactKind : uint8_t { kAnchor, kDelta };

// Bytes from which a version can be rebuilt: all of it (anchor), or from its parent's state
// (delta).
struct ArtifactInfo {
  ArtifactKind kind = ArtifactKind::kAnchor;
  uint64_t bytes = 0;
  uint64_t changed_elements = 0;
  uint64_t objects = 0;
  bool packed = false;  // an anchor that only this library reads
};

struct Version {
  VersionId id;
  uint64_t epoch = 0;  // rises when another writer takes the branch over
  bool fence = false;  // made to take the branch over; the state is the parent's
  std::optional<VersionId> parent;
  std::string root;
  std::vector<ArtifactInfo> artifacts;
  std::string message;
  std::optional<int64_t> step;  // the trainer's own count
  std::string time;             // UTC, ISO 8601; for display alone
};

// How people name versions: "main@12", "main" (its head), "tag:NAME", "root:HEXPREFIX".
struct VersionRef {
  enum class Kind : uint8_t { kHead, kSeq, kTag, kRoot };
  Kind kind = Kind::kHead;
  std::string name;  // branch, tag or hexadecimal prefix
  uint64_t seq = 0;

  static Result<VersionRef> parse(std::string_view text);
};

// Branch and tag names: [a-z0-9._-]{1,128}, not "." or "..".
bool is_ref_name(std::string_view name);

}  // namespace siltstone
