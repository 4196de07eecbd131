// The commit object: the one that makes a version exist (docs/format/repository.md, "Commit").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/version.h"

namespace siltstone {

inline constexpr size_t kMaxCommitBytes = 64 * 1024;
inline constexpr size_t kMaxListBytes = size_t{64} << 20;
inline constexpr uint64_t kMaxObjectBytes = uint64_t{5} << 30;

struct ObjectRef {
  std::string key;
  uint64_t length_bytes = 0;
  std::string sha256;         // hexadecimal
  uint64_t prefix_bytes = 0;  // safetensors length field and header; 0 for lists
  // Of those bytes, where their tables prove parts of the object; else empty.
  std::string prefix_sha256 = {};
};

struct Artifact {
  ArtifactKind kind = ArtifactKind::kAnchor;
  bool packed = false;    // an anchor of sections: a delta from the state that is zero everywhere
  std::string from_root;  // deltas
  std::string to_root;
  uint64_t bytes = 0;          // of all objects
  uint64_t section_bytes = 0;  // deltas and packed anchors
  uint64_t changed_elements = 0;
  // Deltas with sections of codec momentum: root of the version before the one they start from.
  std::string earlier_root;
  // Whether the next delta may have such sections: whoever goes on from here keeps the way back.
  bool momentum = false;
  bool has_sections() const { return packed || kind == ArtifactKind::kDelta; }
  std::vector<ObjectRef> objects;
  std::vector<ObjectRef> lists;  // instead of `objects` where those are too many for a commit
};

struct Commit {
  std::string repo_id;
  VersionId id;  // its hash is that of the stored bytes, filled in by parse_commit
  uint64_t epoch = 0;
  std::string attempt;
  std::optional<VersionId> parent;
  bool fence = false;
  std::string schema;
  std::string root;
  std::vector<Artifact> artifacts;
  std::string message;
  std::optional<int64_t> step;
  std::string time;

  const Artifact* find(ArtifactKind kind) const;
  Version version() const;
};

// The bytes to store. kInvalidArgument if they would exceed kMaxCommitBytes.
Result<std::string> format_commit(const Commit& commit);

// Checks every field and bound; `branch`, `seq` and `repo_id` are what the object's name and the
// repository promise.
Result<Commit> parse_commit(std::string_view bytes, std::string_view repo_id,
                            std::string_view branch, uint64_t seq);

// An artifact in a record of its own.
std::string format_artifact(const Artifact& artifact);
Result<Artifact> parse_artifact(std::string_view bytes);

std::string format_object_list(const std::vector<ObjectRef>& objects);
Result<std::vector<ObjectRef>> parse_object_list(std::string_view bytes);

// What repo.json, branch and tag records hold.
struct RepoRecord {
  std::string repo_id;
  bool single_writer = false;
};
std::string format_repo(const RepoRecord& record);
Result<RepoRecord> parse_repo(std::string_view bytes);

std::string format_ref(const VersionId& target, std::string_view repo_id);
Result<VersionId> parse_ref(std::string_view bytes, std::string_view repo_id);

std::string format_head(const VersionId& head);
// The hinted sequence number; empty if the hint is torn.
std::optional<uint64_t> parse_head(std::string_view bytes);

}  // namespace siltstone
