#include "repo/schema_writer.h"

#include <set>

#include "base/checksum.h"
#include "base/try.h"
#include "repo/keys.h"
#include "repo/objects.h"

namespace siltstone {

Status SchemaWriter::write_object(std::string key, std::string hash, std::string content) {
  const uint64_t bytes = content.size();
  return uploads_.add(bytes,
                      [this, key = std::move(key), hash = std::move(hash),
                       content = std::move(content)]() -> Status {
                        SILT_ASSIGN(const bool written,
                                    create_addressed(store_, key, hash, as_bytes(content)));
                        if (written) bytes_written_ += content.size();
                        return {};
                      });
}

Status SchemaWriter::write_companions(const Checkpoint& next, const Schema* before,
                                      Schema* schema) {
  std::set<std::string> known;
  if (before != nullptr && store_.traits().transfers > 1) {
    for (const CompanionRef& companion : before->companions) known.insert(companion.sha256);
  }
  for (size_t i = 0; i < schema->companions.size(); ++i) {
    CompanionRef& ref = schema->companions[i];
    SILT_ASSIGN(std::string content, next.read_companion(i));
    ref.size_bytes = content.size();
    ref.sha256 = sha256_hex(as_bytes(content));
    if (!known.insert(ref.sha256).second) continue;
    SILT_TRY(write_object(companion_key(ref.sha256), ref.sha256, std::move(content)));
  }
  return {};
}

Result<std::string> SchemaWriter::write(const Checkpoint& next, const Schema* before,
                                        Schema* schema) {
  for (const CompanionFile& file : next.companions())
    schema->companions.push_back({file.path, file.size_bytes, ""});
  if (const Status paths = check_paths(*schema); !paths)
    return Error{Code::kInvalidArgument, "this cannot be published: " + paths.error().message};
  SILT_TRY(write_companions(next, before, schema));
  std::string text = format_schema(*schema);
  if (text.size() > kMaxSchemaBytes) {
    return Error{Code::kUnsupported, "the headers of the weight files have more than 64 MiB"};
  }
  std::string hash = sha256_hex(as_bytes(text));
  if (store_.traits().transfers > 1 && history_.knows_schema(hash)) return hash;
  SILT_TRY(write_object(schema_key(hash), hash, std::move(text)));
  return hash;
}

}  // namespace siltstone
