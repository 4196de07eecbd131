#include "repo/history.h"

#include <algorithm>
#include <set>

#include "base/try.h"
#include "repo/keys.h"

namespace siltstone {
namespace {

// Forks of forks: a hostile bucket could make them endless.
constexpr int kMaxForkDepth = 64;

std::string name_of(const std::string& branch, uint64_t seq) {
  return branch + "@" + std::to_string(seq);
}

// "prefix<name>suffix" -> name
std::optional<std::string> strip(std::string_view text, std::string_view prefix,
                                 std::string_view suffix) {
  if (!text.starts_with(prefix) || !text.ends_with(suffix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  text.remove_suffix(suffix.size());
  if (!is_ref_name(text)) return std::nullopt;
  return std::string(text);
}

}  // namespace

Result<Commit> History::read(const std::string& branch, uint64_t seq) {
  std::string own = branch;
  for (int depth = 0; depth < kMaxForkDepth; ++depth) {
    SILT_ASSIGN(const std::optional<VersionId> start, fork(own));
    if (!start || seq > start->seq) break;
    own = start->branch;
  }
  {
    const std::lock_guard lock(mutex_);
    const auto found = commits_.find({own, seq});
    if (found != commits_.end()) return found->second;
  }
  Result<std::string> bytes = store_->read_all(commit_key(own, seq), kMaxCommitBytes);
  if (!bytes) {
    if (bytes.error().code != Code::kNotFound) {
      return std::move(bytes).error().in("read commit " + name_of(own, seq));
    }
    return Error{Code::kNotFound, "there is no version '" + name_of(branch, seq) + "'"};
  }
  Result<Commit> commit = parse_commit(*bytes, repo_id_, own, seq);
  if (!commit) return std::move(commit).error().in("commit " + name_of(own, seq));
  const std::lock_guard lock(mutex_);
  commits_.insert({{own, seq}, *commit});
  return commit;
}

Result<Commit> History::read(const VersionId& id) {
  SILT_ASSIGN(Commit commit, read(id.branch, id.seq));
  if (commit.id.commit_hash != id.commit_hash) {
    return Error{Code::kCorrupt, "commit " + id.name() + " has hash " + commit.id.commit_hash +
                                     ", expected " + id.commit_hash +
                                     ": the log was rewritten or is another fork"};
  }
  return commit;
}

Result<std::optional<Commit>> History::parent(const Commit& commit) {
  if (!commit.parent) return std::optional<Commit>();
  Result<Commit> parent = read(*commit.parent);
  if (!parent) return std::move(parent).error().in("parent of " + commit.id.name());
  return std::optional<Commit>(*std::move(parent));
}

Result<std::optional<VersionId>> History::fork(const std::string& branch) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = forks_.find(branch);
    if (found != forks_.end()) return found->second;
  }
  std::optional<VersionId> start;
  Result<std::string> bytes = store_->read_all(branch_key(branch), kMaxCommitBytes);
  if (bytes) {
    Result<VersionId> target = parse_ref(*bytes, repo_id_);
    if (!target) return std::move(target).error().in("record of branch '" + branch + "'");
    start = *std::move(target);
  } else if (bytes.error().code != Code::kNotFound) {
    return std::move(bytes).error();
  } else {
    return start;  // not kept: the branch may be created later
  }
  const std::lock_guard lock(mutex_);
  forks_.insert({branch, start});
  return start;
}

Result<bool> History::exists(const std::string& branch, uint64_t seq) {
  const Result<uint64_t> size = store_->size_bytes(commit_key(branch, seq));
  if (size) return true;
  if (size.error().code == Code::kNotFound) return false;
  return size.error();
}

// Sequence numbers are dense, so the newest is found by doubling and bisection; the hint only says
// where to begin.
Result<std::optional<Commit>> History::head(const std::string& branch) {
  SILT_ASSIGN(const std::optional<VersionId> start, fork(branch));
  const uint64_t first = start ? start->seq + 1 : 0;
  std::optional<uint64_t> low;
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = known_heads_.find(branch); known != known_heads_.end()) {
      low = known->second;
    }
  }
  if (!low) {
    const Result<std::string> hint = store_->read_all(head_key(branch), kMaxCommitBytes);
    if (!hint && hint.error().code != Code::kNotFound) return hint.error();
    const std::optional<uint64_t> hinted = hint ? parse_head(*hint) : std::nullopt;
    if (hinted && *hinted >= first) {
      SILT_ASSIGN(const bool there, exists(branch, *hinted));
      if (there) low = hinted;
    }
  }
  if (!low) {
    SILT_ASSIGN(const bool there, exists(branch, first));
    if (!there) {
      if (!start) return std::optional<Commit>();
      SILT_ASSIGN(Commit target, read(*start));
      return std::optional<Commit>(std::move(target));
    }
    low = first;
  }
  uint64_t high = *low + 1;  // not known to exist
  for (uint64_t stride = 1;; stride *= 2) {
    SILT_ASSIGN(const bool there, exists(branch, high));
    if (!there) break;
    low = high;
    high += stride;
  }
  while (high - *low > 1) {
    const uint64_t middle = *low + (high - *low) / 2;
    SILT_ASSIGN(const bool there, exists(branch, middle));
    (there ? *low : high) = middle;
  }
  SILT_ASSIGN(Commit commit, read(branch, *low));
  const std::lock_guard lock(mutex_);
  uint64_t& known = known_heads_[branch];
  known = std::max(known, *low);
  return std::optional<Commit>(std::move(commit));
}

Result<Commit> History::resolve(const VersionRef& ref) {
  switch (ref.kind) {
    case VersionRef::Kind::kSeq:
      return read(ref.name, ref.seq);
    case VersionRef::Kind::kHead: {
      SILT_ASSIGN(std::optional<Commit> found, head(ref.name));
      if (found) return *std::move(found);
      return Error{Code::kNotFound, "branch '" + ref.name + "' has no versions"};
    }
    case VersionRef::Kind::kTag: {
      Result<std::string> bytes = store_->read_all(tag_key(ref.name), kMaxCommitBytes);
      if (!bytes && bytes.error().code == Code::kNotFound) {
        return Error{Code::kNotFound, "there is no tag '" + ref.name + "'"};
      }
      if (!bytes) return std::move(bytes).error();
      Result<VersionId> target = parse_ref(*bytes, repo_id_);
      if (!target) return std::move(target).error().in("record of tag '" + ref.name + "'");
      return read(*target);
    }
    case VersionRef::Kind::kRoot:
      return resolve_root(ref.name);
  }
  return Error{Code::kInternal, "unknown kind of version reference"};
}

Result<Commit> History::resolve_root(const std::string& prefix) {
  SILT_ASSIGN(const std::vector<std::string> branches, branch_names());
  std::optional<Commit> match;
  for (const std::string& branch : branches) {
    SILT_ASSIGN(std::optional<Commit> commit, head(branch));
    while (commit) {
      if (commit->root.starts_with(prefix)) {
        if (match && match->root != commit->root) {
          return Error{Code::kInvalidArgument,
                       "several versions have a root that begins with '" + prefix + "', such as " +
                           match->id.name() + " and " + commit->id.name() + "; give more digits"};
        }
        match = std::move(*commit);
        commit = match;
      }
      if (commit->id.branch != branch) break;  // the rest is walked with its own branch
      SILT_ASSIGN(commit, parent(*commit));
    }
  }
  if (match) return *std::move(match);
  return Error{Code::kNotFound, "no version has a root that begins with '" + prefix + "'"};
}

Result<std::shared_ptr<const Schema>> History::schema(const std::string& hash) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = schemas_.find(hash); found != schemas_.end()) return found->second;
  }
  Result<std::string> bytes = store_->read_all(schema_key(hash), kMaxSchemaBytes);
  if (!bytes) {
    Error error = std::move(bytes).error();
    if (error.code == Code::kNotFound) error.code = Code::kCorrupt;  // a commit promises it
    return error.in("read schema");
  }
  Result<Schema> schema = parse_schema(*bytes, hash);
  if (!schema) return std::move(schema).error().in("schema '" + hash + "'");
  auto shared = std::make_shared<const Schema>(*std::move(schema));
  const std::lock_guard lock(mutex_);
  schemas_[hash] = shared;
  return std::shared_ptr<const Schema>(shared);
}

Result<std::vector<std::string>> History::branch_names() {
  std::set<std::string> names;
  SILT_ASSIGN(const std::vector<ObjectInfo> records, store_->list("branches/"));
  for (const ObjectInfo& record : records) {
    if (auto name = strip(record.name, "branches/", ".json")) names.insert(*std::move(name));
  }
  // A root branch has no record: its first version names it.
  SILT_ASSIGN(const std::vector<ObjectInfo> log, store_->list("log/"));
  for (const ObjectInfo& object : log) {
    const std::string_view rest = std::string_view(object.name).substr(4);
    const std::string_view branch = rest.substr(0, rest.find('/'));
    if (is_ref_name(branch)) names.insert(std::string(branch));
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<std::vector<RefInfo>> History::tags() {
  SILT_ASSIGN(const std::vector<ObjectInfo> records, store_->list("tags/"));
  std::vector<RefInfo> tags;
  for (const ObjectInfo& record : records) {
    const std::optional<std::string> name = strip(record.name, "tags/", ".json");
    if (!name) continue;
    SILT_ASSIGN(const std::string bytes, store_->read_all(record.name, kMaxCommitBytes));
    Result<VersionId> target = parse_ref(bytes, repo_id_);
    if (!target) return std::move(target).error().in("record of tag '" + *name + "'");
    tags.push_back({*name, *std::move(target)});
  }
  return tags;
}

}  // namespace siltstone
