// Tags and branches: create-exclusive records that name a commit.
#include "base/try.h"
#include "repo/bucket.h"
#include "repo/keys.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

// Creating the same record twice is one record: a repeated command or a lost reply is no conflict.
Status create_record(Store& store, const std::string& key, const std::string& bytes,
                     const std::string& what) {
  Status created = create_unique(store, key, PiecesSource({as_bytes(bytes)}));
  if (created) return {};
  if (created.error().code != Code::kConflict) return std::move(created).error().in(what);
  SILT_ASSIGN(const std::string found, store.read_all(key, kMaxCommitBytes));
  if (found == bytes) return {};
  return Error{Code::kConflict, what + " already exists and names another version"};
}

Error bad_name(std::string_view name) {
  return {Code::kInvalidArgument,
          "'" + std::string(name) + "' is not a legal name: use a-z, 0-9, '.', '_' and '-'"};
}

}  // namespace

Status Bucket::tag(std::string_view name, const Version& version) {
  if (!is_ref_name(name)) return bad_name(name);
  return create_record(*store_, tag_key(name), format_ref(version.id, repo_id_),
                       "tag '" + std::string(name) + "'");
}

Result<std::vector<RefInfo>> Bucket::tags() {
  return history_.tags();
}

Status Bucket::branch(std::string_view name, const Version& version) {
  if (!is_ref_name(name)) return bad_name(name);
  const std::string text(name);
  // A root branch has versions but no record, and its name is as taken.
  SILT_ASSIGN(const std::optional<VersionId> start, history_.fork(text));
  if (!start) {
    SILT_ASSIGN(const std::optional<Commit> head, history_.head(text));
    if (head) return Error{Code::kConflict, "branch '" + text + "' already exists"};
  }
  return create_record(*store_, branch_key(name), format_ref(version.id, repo_id_),
                       "branch '" + text + "'");
}

Result<std::vector<RefInfo>> Bucket::branches() {
  SILT_ASSIGN(const std::vector<std::string> names, history_.branch_names());
  std::vector<RefInfo> branches;
  for (const std::string& name : names) {
    SILT_ASSIGN(const std::optional<Commit> head, history_.head(name));
    if (head) branches.push_back({name, head->id});
  }
  return branches;
}

}  // namespace siltstone
