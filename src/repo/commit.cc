#include "repo/commit.h"

#include <algorithm>
#include <set>

#include "base/checksum.h"
#include "base/json.h"
#include "base/try.h"
#include "siltstone/store.h"

namespace siltstone {
namespace {

constexpr uint64_t kFormat = 1;
constexpr const char* kDigestAlgorithm = "nh128-sha256";
// How objects of the bucket are created (RepoRecord::single_writer).
constexpr const char* kExclusive = "exclusive";
constexpr const char* kSingleWriter = "single-writer";

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Error corrupt(std::string message) {
  return {Code::kCorrupt, std::move(message)};
}

Result<std::string> hex_member(const Json& object, const char* key, size_t digits) {
  SILT_ASSIGN(std::string text, json_string(object, key));
  if (!is_hex(text, digits)) {
    return corrupt(std::string("'") + key + "' is not " + std::to_string(digits) +
                   " hexadecimal digits");
  }
  return text;
}

// A reader that does not know a required feature, or a later format, must stop.
Status check_format(const Json& object) {
  SILT_ASSIGN(const uint64_t format, json_uint(object, "format"));
  if (format != kFormat) {
    return Error{Code::kUnsupported, "format " + std::to_string(format) +
                                         " is newer than this program reads (" +
                                         std::to_string(kFormat) + "); update siltstone"};
  }
  const auto features = object.find("required_features");
  if (features == object.end()) return {};
  if (!features->is_array()) return corrupt("'required_features' is not an array");
  if (!features->empty()) {
    return Error{Code::kUnsupported, "needs the feature " + features->front().dump() +
                                         ", which this program lacks; update siltstone"};
  }
  return {};
}

// Records end with the hash of all that stands before it: the newest commit is named by no other
// object, and a bit that flipped on the way must not become the parent hash of the next.
constexpr std::string_view kSealOpen = ",\"seal\":\"";
constexpr std::string_view kSealClose = "\"}";
constexpr size_t kSealBytes = kSealOpen.size() + 64 + kSealClose.size();

// `json` is an object's text.
std::string seal(std::string json) {
  json.pop_back();
  const std::string hash = sha256_hex(as_bytes(json));
  return json.append(kSealOpen).append(hash).append(kSealClose);
}

Status check_seal(std::string_view bytes) {
  if (bytes.size() <= kSealBytes) return corrupt("it is cut off");
  const std::string_view body = bytes.substr(0, bytes.size() - kSealBytes);
  const std::string_view end = bytes.substr(body.size());
  if (!end.starts_with(kSealOpen) || !end.ends_with(kSealClose) ||
      end.substr(kSealOpen.size(), 64) != sha256_hex(as_bytes(body))) {
    return corrupt("its seal does not match its content: it was damaged");
  }
  return {};
}

Json to_json(const VersionId& id) {
  return {{"branch", id.branch}, {"seq", id.seq}, {"hash", id.commit_hash}};
}

Result<VersionId> version_id(const Json& object) {
  VersionId id;
  SILT_ASSIGN(id.branch, json_string(object, "branch"));
  if (!is_ref_name(id.branch)) return corrupt("'branch' is not a legal branch name");
  SILT_ASSIGN(id.seq, json_uint(object, "seq"));
  SILT_ASSIGN(id.commit_hash, hex_member(object, "hash", 64));
  return id;
}

Json to_json(const std::vector<ObjectRef>& objects) {
  Json array = Json::array();
  for (const ObjectRef& object : objects) {
    Json item = {{"key", object.key}, {"length", object.length_bytes}, {"sha256", object.sha256}};
    if (object.prefix_bytes != 0) item["header"] = object.prefix_bytes;
    if (!object.prefix_sha256.empty()) item["header_sha256"] = object.prefix_sha256;
    array.push_back(std::move(item));
  }
  return array;
}

Result<std::vector<ObjectRef>> object_refs(const Json& array) {
  std::vector<ObjectRef> objects;
  std::set<std::string> keys;
  for (const Json& item : array) {
    ObjectRef object;
    SILT_ASSIGN(object.key, json_string(item, "key"));
    if (!is_object_name(object.key) || !object.key.starts_with("obj/")) {
      return corrupt("'" + object.key + "' is not a legal name of a data object");
    }
    if (!keys.insert(object.key).second) return corrupt("object '" + object.key + "' stands twice");
    SILT_ASSIGN(object.length_bytes, json_uint(item, "length"));
    if (object.length_bytes > kMaxObjectBytes) {
      return corrupt("object '" + object.key + "' claims " + std::to_string(object.length_bytes) +
                     " bytes, more than 5 GiB");
    }
    SILT_ASSIGN(object.sha256, hex_member(item, "sha256", 64));
    if (item.contains("header")) {
      SILT_ASSIGN(object.prefix_bytes, json_uint(item, "header"));
      if (object.prefix_bytes > object.length_bytes) {
        return corrupt("object '" + object.key + "' claims a header longer than itself");
      }
    }
    if (item.contains("header_sha256")) {
      SILT_ASSIGN(object.prefix_sha256, hex_member(item, "header_sha256", 64));
    }
    objects.push_back(std::move(object));
  }
  return objects;
}

Json to_json(const Artifact& artifact) {
  Json json = {{"to", artifact.to_root}, {"bytes", artifact.bytes}};
  if (artifact.kind == ArtifactKind::kAnchor) {
    json["type"] = artifact.packed ? "packed-anchor" : "anchor";
  } else {
    json["type"] = "delta";
    json["from"] = artifact.from_root;
    if (!artifact.earlier_root.empty()) json["earlier"] = artifact.earlier_root;
    if (artifact.momentum) json["momentum"] = true;
  }
  if (artifact.has_sections()) {
    json["sections"] = artifact.section_bytes;
    json["changed"] = artifact.changed_elements;
  }
  if (artifact.lists.empty()) {
    json["objects"] = to_json(artifact.objects);
  } else {
    json["lists"] = to_json(artifact.lists);
  }
  return json;
}

Result<Artifact> artifact_from(const Json& json) {
  Artifact artifact;
  SILT_ASSIGN(const std::string type, json_string(json, "type"));
  artifact.packed = type == "packed-anchor";
  if (!artifact.packed && type != "anchor" && type != "delta") {
    return Error{Code::kUnsupported, "artifact type '" + type + "' is unknown"};
  }
  artifact.kind = type == "delta" ? ArtifactKind::kDelta : ArtifactKind::kAnchor;
  SILT_ASSIGN(artifact.to_root, hex_member(json, "to", 64));
  SILT_ASSIGN(artifact.bytes, json_uint(json, "bytes"));
  if (artifact.kind == ArtifactKind::kDelta) {
    SILT_ASSIGN(artifact.from_root, hex_member(json, "from", 64));
    if (json.contains("earlier")) {
      SILT_ASSIGN(artifact.earlier_root, hex_member(json, "earlier", 64));
    }
    if (const auto momentum = json.find("momentum"); momentum != json.end()) {
      if (!momentum->is_boolean()) return corrupt("'momentum' is neither true nor false");
      artifact.momentum = momentum->get<bool>();
    }
  }
  if (artifact.has_sections()) {
    SILT_ASSIGN(artifact.section_bytes, json_uint(json, "sections"));
    SILT_ASSIGN(artifact.changed_elements, json_uint(json, "changed"));
  }
  if (json.contains("lists")) {
    SILT_ASSIGN(const Json* lists, json_array(json, "lists"));
    SILT_ASSIGN(artifact.lists, object_refs(*lists));
    for (const ObjectRef& list : artifact.lists) {
      if (list.length_bytes > kMaxListBytes) return corrupt("an object list is larger than 64 MiB");
    }
  } else {
    SILT_ASSIGN(const Json* objects, json_array(json, "objects"));
    SILT_ASSIGN(artifact.objects, object_refs(*objects));
  }
  return artifact;
}

Status parse_user(const Json& json, Commit* commit) {
  SILT_ASSIGN(const Json* user, json_object(json, "user"));
  SILT_ASSIGN(commit->message, json_string(*user, "message"));
  if (const auto step = user->find("step"); step != user->end()) {
    if (!step->is_number_integer()) return corrupt("'step' is not an integer");
    commit->step = step->get<int64_t>();
  }
  return {};
}

Status parse_lineage(const Json& json, Commit* commit) {
  const auto parent = json.find("parent");
  if (parent == json.end()) return corrupt("'parent' is missing");
  if (parent->is_null()) {
    if (commit->fence || commit->id.seq != 0) return corrupt("'parent' is null in a later version");
    return {};
  }
  SILT_ASSIGN(VersionId id, version_id(*parent));
  if (id.seq + 1 != commit->id.seq) {
    return corrupt("parent is version " + std::to_string(id.seq) + ", expected " +
                   std::to_string(commit->id.seq) + " minus one");
  }
  commit->parent = std::move(id);
  return {};
}

}  // namespace

const Artifact* Commit::find(ArtifactKind kind) const {
  for (const Artifact& artifact : artifacts) {
    if (artifact.kind == kind) return &artifact;
  }
  return nullptr;
}

Version Commit::version() const {
  Version version;
  version.id = id;
  version.epoch = epoch;
  version.fence = fence;
  version.parent = parent;
  version.root = root;
  version.message = message;
  version.step = step;
  version.time = time;
  for (const Artifact& artifact : artifacts) {
    version.artifacts.push_back({artifact.kind, artifact.bytes, artifact.changed_elements,
                                 artifact.objects.size() + artifact.lists.size(), artifact.packed});
  }
  return version;
}

Result<std::string> format_commit(const Commit& commit) {
  Json json = {{"format", kFormat},
               {"required_features", Json::array()},
               {"repo_id", commit.repo_id},
               {"branch", commit.id.branch},
               {"seq", commit.id.seq},
               {"epoch", commit.epoch},
               {"attempt", commit.attempt},
               {"kind", commit.fence ? "fence" : "publish"},
               {"parent", commit.parent ? to_json(*commit.parent) : Json(nullptr)},
               {"schema", commit.schema},
               {"state", {{"algorithm", kDigestAlgorithm}, {"root", commit.root}}},
               {"user", {{"message", commit.message}}},
               {"time", commit.time},
               {"artifacts", Json::array()}};
  if (commit.step) json["user"]["step"] = *commit.step;
  for (const Artifact& artifact : commit.artifacts) json["artifacts"].push_back(to_json(artifact));
  std::string bytes = seal(json.dump(-1, ' ', false, Json::error_handler_t::replace));
  if (bytes.size() > kMaxCommitBytes) {
    return Error{Code::kInvalidArgument,
                 "the commit would have " + std::to_string(bytes.size()) +
                     " bytes, at most 65536 are allowed; shorten the message"};
  }
  return bytes;
}

Result<Commit> parse_commit(std::string_view bytes, std::string_view repo_id,
                            std::string_view branch, uint64_t seq) {
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxCommitBytes, 8}));
  SILT_TRY(check_format(json));
  SILT_TRY(check_seal(bytes));
  Commit commit;
  SILT_ASSIGN(commit.repo_id, hex_member(json, "repo_id", 32));
  SILT_ASSIGN(commit.id.branch, json_string(json, "branch"));
  SILT_ASSIGN(commit.id.seq, json_uint(json, "seq"));
  if (commit.repo_id != repo_id) return corrupt("belongs to repository " + commit.repo_id);
  if (commit.id.branch != branch || commit.id.seq != seq) {
    return corrupt("says it is '" + commit.id.name() + "'");
  }
  commit.id.commit_hash = sha256_hex(as_bytes(bytes));
  SILT_ASSIGN(commit.epoch, json_uint(json, "epoch"));
  if (commit.epoch > UINT32_MAX) return corrupt("'epoch' is beyond 32 bits");
  SILT_ASSIGN(commit.attempt, hex_member(json, "attempt", 32));
  SILT_ASSIGN(const std::string kind, json_string(json, "kind"));
  if (kind != "publish" && kind != "fence") {
    return Error{Code::kUnsupported, "kind '" + kind + "' is unknown; update siltstone"};
  }
  commit.fence = kind == "fence";
  SILT_TRY(parse_lineage(json, &commit));
  SILT_ASSIGN(commit.schema, hex_member(json, "schema", 64));
  SILT_ASSIGN(const Json* state, json_object(json, "state"));
  SILT_ASSIGN(const std::string algorithm, json_string(*state, "algorithm"));
  if (algorithm != kDigestAlgorithm) {
    return Error{Code::kUnsupported, "digest '" + algorithm + "' is unknown; update siltstone"};
  }
  SILT_ASSIGN(commit.root, hex_member(*state, "root", 64));
  SILT_ASSIGN(const Json* artifacts, json_array(json, "artifacts"));
  for (const Json& item : *artifacts) {
    SILT_ASSIGN(Artifact artifact, artifact_from(item));
    if (artifact.to_root != commit.root)
      return corrupt("an artifact leads to another root than the commit's");
    if (commit.find(artifact.kind) != nullptr) return corrupt("two artifacts of one type");
    commit.artifacts.push_back(std::move(artifact));
  }
  if (!commit.fence && commit.artifacts.empty()) return corrupt("no artifact to rebuild it from");
  SILT_TRY(parse_user(json, &commit));
  SILT_ASSIGN(commit.time, json_string(json, "time"));
  return commit;
}

std::string format_artifact(const Artifact& artifact) {
  return seal(to_json(artifact).dump());
}

Result<Artifact> parse_artifact(std::string_view bytes) {
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxListBytes, 8}));
  SILT_TRY(check_seal(bytes));
  return artifact_from(json);
}

std::string format_object_list(const std::vector<ObjectRef>& objects) {
  return to_json(objects).dump();
}

Result<std::vector<ObjectRef>> parse_object_list(std::string_view bytes) {
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxListBytes, 8}));
  if (!json.is_array()) return corrupt("object list is not an array");
  return object_refs(json);
}

std::string format_repo(const RepoRecord& record) {
  const Json json = {{"format", kFormat},
                     {"required_features", Json::array()},
                     {"repo_id", record.repo_id},
                     {"digest", kDigestAlgorithm},
                     {"create", record.single_writer ? kSingleWriter : kExclusive}};
  return seal(json.dump());
}

Result<RepoRecord> parse_repo(std::string_view bytes) {
  SILT_ASSIGN(const Json json, parse_json(bytes));
  SILT_TRY(check_format(json));
  SILT_TRY(check_seal(bytes));
  RepoRecord record;
  SILT_ASSIGN(record.repo_id, hex_member(json, "repo_id", 32));
  SILT_ASSIGN(const std::string digest, json_string(json, "digest"));
  if (digest != kDigestAlgorithm) {
    return Error{Code::kUnsupported, "digest '" + digest + "' is unknown; update siltstone"};
  }
  // Repositories of the first programs do not say it.
  if (json.contains("create")) {
    SILT_ASSIGN(const std::string create, json_string(json, "create"));
    record.single_writer = create == kSingleWriter;
    if (!record.single_writer && create != kExclusive)
      return Error{Code::kUnsupported, "create '" + create + "' is unknown; update siltstone"};
  }
  return record;
}

std::string format_ref(const VersionId& target, std::string_view repo_id) {
  const Json json = {{"format", kFormat}, {"repo_id", repo_id}, {"target", to_json(target)}};
  return seal(json.dump());
}

Result<VersionId> parse_ref(std::string_view bytes, std::string_view repo_id) {
  SILT_ASSIGN(const Json json, parse_json(bytes));
  SILT_TRY(check_format(json));
  SILT_TRY(check_seal(bytes));
  SILT_ASSIGN(const std::string found, hex_member(json, "repo_id", 32));
  if (found != repo_id) return corrupt("belongs to repository " + found);
  SILT_ASSIGN(const Json* target, json_object(json, "target"));
  return version_id(*target);
}

std::string format_head(const VersionId& head) {
  return to_json(head).dump();
}

std::optional<uint64_t> parse_head(std::string_view bytes) {
  const Result<Json> json = parse_json(bytes);
  if (!json) return std::nullopt;
  const Result<uint64_t> seq = json_uint(*json, "seq");
  if (!seq) return std::nullopt;
  return *seq;
}

}  // namespace siltstone
