#include "repo/schema.h"

#include <algorithm>
#include <set>

#include "base/checksum.h"
#include "base/json.h"
#include "base/try.h"
#include "delta/grid.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

constexpr uint64_t kFormat = 1;

Error corrupt(std::string message) {
  return {Code::kCorrupt, std::move(message)};
}

// Tensors of one file, appended to `tensors` with entries that count from its present end.
Status add_weight_file(const Json& item, Schema* schema) {
  WeightFile file;
  SILT_ASSIGN(file.path, json_string(item, "path"));
  SILT_ASSIGN(file.header, json_string(item, "header"));
  SILT_ASSIGN(file.size_bytes, json_uint(item, "size"));
  const uint64_t prefix = kLengthFieldBytes + file.header.size();
  if (file.size_bytes < prefix) return corrupt("'" + file.path + "' is shorter than its header");
  Result<SafetensorsHeader> header =
      parse_safetensors_header(file.header, file.size_bytes - prefix);
  if (!header) return std::move(header).error().in("header of '" + file.path + "'");
  for (SafetensorsEntry& entry : header->entries) {
    file.entries.push_back({schema->tensors.size(), prefix + entry.offset_bytes});
    schema->tensors.push_back(std::move(entry.info));
  }
  schema->files.push_back(std::move(file));
  return {};
}

// Sorts the tensors by name and renumbers the files' entries.
Status sort_tensors(Schema* schema) {
  const size_t count = schema->tensors.size();
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [schema](size_t x, size_t y) {
    return schema->tensors[x].name < schema->tensors[y].name;
  });
  std::vector<size_t> rank(count);
  std::vector<TensorInfo> sorted(count);
  for (size_t i = 0; i < count; ++i) {
    rank[order[i]] = i;
    sorted[i] = std::move(schema->tensors[order[i]]);
    if (i > 0 && sorted[i].name == sorted[i - 1].name) {
      return corrupt("tensor '" + sorted[i].name + "' lies in two files");
    }
  }
  schema->tensors = std::move(sorted);
  for (WeightFile& file : schema->files) {
    for (WeightFile::Entry& entry : file.entries) entry.tensor = rank[entry.tensor];
  }
  return {};
}

Status add_companion(const Json& item, Schema* schema) {
  CompanionRef companion;
  SILT_ASSIGN(companion.path, json_string(item, "path"));
  SILT_ASSIGN(companion.size_bytes, json_uint(item, "size"));
  SILT_ASSIGN(companion.sha256, json_string(item, "sha256"));
  Sha256Digest digest;
  if (!from_hex(companion.sha256, digest)) return corrupt("a companion's 'sha256' is not a digest");
  schema->companions.push_back(std::move(companion));
  return {};
}

}  // namespace

Status check_paths(const Schema& schema) {
  std::set<std::string> paths;
  auto add = [&paths](const std::string& path) -> Status {
    if (!is_safe_path(path)) return corrupt("'" + path + "' is not a path that may be created");
    if (!paths.insert(path).second) return corrupt("file '" + path + "' stands twice");
    return {};
  };
  for (const WeightFile& file : schema.files) SILT_TRY(add(file.path));
  for (const CompanionRef& companion : schema.companions) SILT_TRY(add(companion.path));
  for (const std::string& path : paths) {
    for (size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      if (paths.contains(path.substr(0, slash))) {
        return corrupt("'" + path.substr(0, slash) + "' is both a file and a folder");
      }
    }
  }
  return {};
}

uint64_t Schema::total_bytes() const {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors) total += tensor.size_bytes;
  return total;
}

uint64_t Schema::total_elements() const {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors) total += word_matrix(tensor).words();
  return total;
}

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > 1024) return false;
  size_t components = 0;
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part.size() > 255 || part == "." || part == ".." || part == ".siltstone") {
      return false;
    }
    for (const char c : part) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return false;
    }
    if (++components > 8) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::string format_schema(const Schema& schema) {
  Json json = {{"format", kFormat}, {"weights", Json::array()}, {"companions", Json::array()}};
  for (const WeightFile& file : schema.files) {
    json["weights"].push_back(
        {{"path", file.path}, {"size", file.size_bytes}, {"header", file.header}});
  }
  for (const CompanionRef& companion : schema.companions) {
    json["companions"].push_back(
        {{"path", companion.path}, {"size", companion.size_bytes}, {"sha256", companion.sha256}});
  }
  return json.dump();
}

Result<Schema> parse_schema(std::string_view bytes, std::string_view hash) {
  if (sha256_hex(as_bytes(bytes)) != hash) return corrupt("content does not match its name");
  SILT_ASSIGN(const Json json, parse_json(bytes, {kMaxSchemaBytes, 8}));
  SILT_ASSIGN(const uint64_t format, json_uint(json, "format"));
  if (format != kFormat) {
    return Error{Code::kUnsupported, "schema format " + std::to_string(format) +
                                         " is newer than this program reads; update siltstone"};
  }
  Schema schema;
  SILT_ASSIGN(const Json* weights, json_array(json, "weights"));
  for (const Json& item : *weights) SILT_TRY(add_weight_file(item, &schema));
  SILT_ASSIGN(const Json* companions, json_array(json, "companions"));
  for (const Json& item : *companions) SILT_TRY(add_companion(item, &schema));
  SILT_TRY(sort_tensors(&schema));
  SILT_TRY(check_paths(schema));
  return schema;
}

}  // namespace siltstone
