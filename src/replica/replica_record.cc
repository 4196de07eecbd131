// The JSON records that a replica folder keeps of itself.
#include "base/json.h"
#include "base/try.h"
#include "replica/files_replica.h"

namespace siltstone {
namespace {

constexpr uint64_t kFormat = 1;
constexpr size_t kMaxRecordBytes = size_t{512} << 20;

Json to_json(const ReplicaRecord& record) {
  const Version& version = record.version;
  Json json = {
      {"format", kFormat},       {"repo_id", record.repo_id},      {"branch", version.id.branch},
      {"seq", version.id.seq},   {"hash", version.id.commit_hash}, {"epoch", version.epoch},
      {"root", version.root},    {"message", version.message},     {"time", version.time},
      {"schema", record.schema}, {"sums", Json::array()},          {"files", Json::array()}};
  if (version.step) json["step"] = *version.step;
  for (const Sum128& sum : record.sums) json["sums"].push_back(to_hex(sum));
  for (const ReplicaRecord::Seen& file : record.files) {
    json["files"].push_back({{"path", file.path},
                             {"inode", file.stat.inode},
                             {"size", file.stat.size_bytes},
                             {"mtime_ns", file.stat.mtime_ns}});
  }
  return json;
}

Result<ReplicaRecord> record_from(const Json& json) {
  SILT_ASSIGN(const uint64_t format, json_uint(json, "format"));
  if (format != kFormat) {
    return Error{Code::kUnsupported,
                 "it was written by another siltstone (format " + std::to_string(format) + ")"};
  }
  ReplicaRecord record;
  Version& version = record.version;
  SILT_ASSIGN(record.repo_id, json_string(json, "repo_id"));
  SILT_ASSIGN(version.id.branch, json_string(json, "branch"));
  SILT_ASSIGN(version.id.seq, json_uint(json, "seq"));
  SILT_ASSIGN(version.id.commit_hash, json_string(json, "hash"));
  SILT_ASSIGN(version.epoch, json_uint(json, "epoch"));
  SILT_ASSIGN(version.root, json_string(json, "root"));
  SILT_ASSIGN(version.message, json_string(json, "message"));
  SILT_ASSIGN(version.time, json_string(json, "time"));
  SILT_ASSIGN(record.schema, json_string(json, "schema"));
  if (const auto step = json.find("step"); step != json.end() && step->is_number_integer()) {
    version.step = step->get<int64_t>();
  }
  SILT_ASSIGN(const Json* sums, json_array(json, "sums"));
  for (const Json& text : *sums) {
    Sum128 sum;
    if (!text.is_string() || !sum_from_hex(text.get<std::string>(), &sum)) {
      return Error{Code::kCorrupt, "a sum is not hexadecimal"};
    }
    record.sums.push_back(sum);
  }
  SILT_ASSIGN(const Json* files, json_array(json, "files"));
  for (const Json& item : *files) {
    ReplicaRecord::Seen file;
    SILT_ASSIGN(file.path, json_string(item, "path"));
    SILT_ASSIGN(file.stat.inode, json_uint(item, "inode"));
    SILT_ASSIGN(file.stat.size_bytes, json_uint(item, "size"));
    const auto mtime = item.find("mtime_ns");
    if (mtime == item.end() || !mtime->is_number_integer()) {
      return Error{Code::kCorrupt, "a file's time is missing"};
    }
    file.stat.mtime_ns = mtime->get<int64_t>();
    record.files.push_back(std::move(file));
  }
  return record;
}

// Paths that a record may make us rename or remove: ours wrote them, yet they are checked.
Result<std::vector<std::string>> paths_from(const Json& json, const char* key) {
  SILT_ASSIGN(const Json* array, json_array(json, key));
  std::vector<std::string> paths;
  for (const Json& item : *array) {
    if (!item.is_string() || !is_safe_path(item.get<std::string>())) {
      return Error{Code::kCorrupt, "it names an illegal path"};
    }
    paths.push_back(item.get<std::string>());
  }
  return paths;
}

}  // namespace

std::string format_replica(const ReplicaRecord& record) {
  return to_json(record).dump(1, ' ', false, Json::error_handler_t::replace);
}

Result<ReplicaRecord> parse_replica(std::string_view bytes) {
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxRecordBytes, 8}));
  return record_from(json);
}

std::string format_journal(const ReplicaJournal& journal) {
  const Json json = {{"stage", journal.stage},
                     {"renames", journal.renames},
                     {"removals", journal.removals},
                     {"record", to_json(journal.record)}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

Result<ReplicaJournal> parse_journal(std::string_view bytes) {
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxRecordBytes, 8}));
  ReplicaJournal journal;
  SILT_ASSIGN(journal.stage, json_string(json, "stage"));
  if (!journal.stage.starts_with("stage-") || journal.stage.find('/') != std::string::npos) {
    return Error{Code::kCorrupt, "it names an illegal folder"};
  }
  SILT_ASSIGN(journal.renames, paths_from(json, "renames"));
  SILT_ASSIGN(journal.removals, paths_from(json, "removals"));
  SILT_ASSIGN(const Json* record, json_object(json, "record"));
  SILT_ASSIGN(journal.record, record_from(*record));
  return journal;
}

}  // namespace siltstone
