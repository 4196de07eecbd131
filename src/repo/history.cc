#include "repo/history.h"

#include <algorithm>
#include <set>

#include "base/parallel.h"
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

Result<History::Home> History::home(const std::string& branch, uint64_t seq) {
  Home home{branch, 0};
  for (int depth = 0; depth < kMaxForkDepth; ++depth) {
    SILT_ASSIGN(const std::optional<VersionId> start, fork(home.branch));
    home.first = start ? start->seq + 1 : 0;
    if (!start || seq > start->seq) break;
    home.branch = start->branch;
  }
  return home;
}

Result<Commit> History::read(const std::string& branch, uint64_t seq) {
  SILT_ASSIGN(const Home home, this->home(branch, seq));
  const std::string& own = home.branch;
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
  keep(*commit);
  return commit;
}

void History::keep(const Commit& commit) {
  const std::lock_guard lock(mutex_);
  commits_.insert({{commit.id.branch, commit.id.seq}, commit});
  uint64_t& known = known_heads_[commit.id.branch];
  known = std::max(known, commit.id.seq);
}

void History::keep_schema(const std::string& hash, Schema schema) {
  auto shared = std::make_shared<const Schema>(std::move(schema));
  const std::lock_guard lock(mutex_);
  schemas_.insert({hash, std::move(shared)});
}

bool History::knows_schema(const std::string& hash) {
  const std::lock_guard lock(mutex_);
  return schemas_.contains(hash);
}

std::optional<Commit> History::last_seen(const std::string& branch) {
  const std::lock_guard lock(mutex_);
  const auto known = known_heads_.find(branch);
  if (known == known_heads_.end()) return std::nullopt;
  const auto found = commits_.find({branch, known->second});
  if (found == commits_.end()) return std::nullopt;
  return found->second;
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
  read_ahead(*commit.parent);
  Result<Commit> parent = read(*commit.parent);
  if (!parent) return std::move(parent).error().in("parent of " + commit.id.name());
  return std::optional<Commit>(*std::move(parent));
}

// Versions before one that a walk asks for will be asked for next. The first batch is small, since
// most walks are short, and each is four times the one before. Failures are for whoever reads.
void History::read_ahead(const VersionId& id) {
  constexpr uint64_t kFirstBatch = 4;
  const unsigned transfers = store_->traits().transfers;
  if (transfers <= 1) return;
  const Result<Home> home = this->home(id.branch, id.seq);
  if (!home) return;
  uint64_t batch = kFirstBatch;
  {
    const std::lock_guard lock(mutex_);
    if (commits_.contains({home->branch, id.seq})) return;
    if (walk_.branch == home->branch && walk_.seq == id.seq) batch = 4 * walk_batch_;
    batch = std::min({batch, uint64_t{4} * transfers, id.seq - home->first + 1});
    walk_batch_ = batch;
    walk_.branch = home->branch;
    walk_.seq = id.seq - batch;  // below zero: no walk asks for it
  }
  std::vector<uint64_t> seqs;
  for (uint64_t back = 0; back < batch; ++back) seqs.push_back(id.seq - back);
  (void)exist(home->branch, seqs);
}

// An absent record says that a branch is a root branch only where the branch had versions before it
// was looked for: a branch's record is written before its first version.
Result<std::optional<VersionId>> History::fork(const std::string& branch) {
  bool has_versions = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = forks_.find(branch);
    if (found != forks_.end()) return found->second;
    has_versions = known_heads_.contains(branch);
  }
  std::optional<VersionId> start;
  Result<std::string> bytes = store_->read_all(branch_key(branch), kMaxCommitBytes);
  if (bytes) {
    Result<VersionId> target = parse_ref(*bytes, repo_id_);
    if (!target) return std::move(target).error().in("record of branch '" + branch + "'");
    start = *std::move(target);
  } else if (bytes.error().code != Code::kNotFound) {
    return std::move(bytes).error();
  } else if (!has_versions) {
    return start;  // not kept: the branch may be created later
  }
  const std::lock_guard lock(mutex_);
  forks_.insert({branch, start});
  return start;
}

// One that is damaged exists all the same; whoever reads it learns what is wrong.
Result<bool> History::exists(const std::string& branch, uint64_t seq) {
  {
    const std::lock_guard lock(mutex_);
    if (commits_.contains({branch, seq})) return true;
  }
  const Result<std::string> bytes = store_->read_all(commit_key(branch, seq), kMaxCommitBytes);
  if (!bytes && bytes.error().code == Code::kNotFound) return false;
  if (!bytes && bytes.error().code != Code::kCorrupt) return bytes.error();
  const Result<Commit> commit = bytes ? parse_commit(*bytes, repo_id_, branch, seq) : bytes.error();
  if (commit) keep(*commit);
  return true;
}

Result<std::vector<bool>> History::exist(const std::string& branch,
                                         const std::vector<uint64_t>& seqs) {
  std::vector<char> there(seqs.size());  // one byte each, for threads
  SILT_TRY(parallel_for(seqs.size(), std::max(1U, store_->traits().transfers),
                        [&](uint64_t i, unsigned) -> Status {
                          SILT_ASSIGN(there[i], exists(branch, seqs[i]));
                          return {};
                        }));
  return std::vector<bool>(there.begin(), there.end());
}

// A version that is known to exist, from the hint or because it is the first.
Result<std::optional<uint64_t>> History::hinted_head(const std::string& branch, uint64_t first) {
  const Result<std::string> hint = store_->read_all(head_key(branch), kMaxCommitBytes);
  if (!hint && hint.error().code != Code::kNotFound) return hint.error();
  const std::optional<uint64_t> hinted = hint ? parse_head(*hint) : std::nullopt;
  for (const std::optional<uint64_t> seq : {hinted, std::optional(first)}) {
    if (!seq || *seq < first) continue;
    SILT_ASSIGN(const bool there, exists(branch, *seq));
    if (there) return seq;
  }
  return std::optional<uint64_t>();
}

// Asks for versions in ascending order between `low`, which exists, and `high`, which is not known
// to; moves both. Returns whether one of them is missing.
Result<bool> History::narrow(const std::string& branch, const std::vector<uint64_t>& seqs,
                             uint64_t* low, uint64_t* high) {
  SILT_ASSIGN(const std::vector<bool> there, exist(branch, seqs));
  for (size_t i = 0; i < seqs.size(); ++i) {
    if (!there[i]) {
      *high = seqs[i];
      return true;
    }
    *low = seqs[i];
  }
  return false;
}

// Sequence numbers are dense, so the newest is found by doubling and bisection; where a store is
// worth several requests at once, by many strides and sections at once. The two next ones are asked
// for alone: mostly there is nothing new, or one version.
Result<uint64_t> History::last_from(const std::string& branch, uint64_t low) {
  constexpr unsigned kMaxStrides = 4;  // of which all but one may be in vain
  const unsigned at_once = std::max(1U, store_->traits().transfers);
  const unsigned strides = std::min(at_once, kMaxStrides);
  const uint64_t begin = low;
  uint64_t high = 0;
  uint64_t stride = 1;
  for (int round = 0;; ++round) {
    std::vector<uint64_t> seqs;
    for (unsigned i = 0; i < (round < 2 ? 1 : strides); ++i) {
      if (stride > UINT64_MAX / 2 - begin / 2) break;
      seqs.push_back(begin + stride);
      stride *= 2;
    }
    if (seqs.empty()) return low;
    SILT_ASSIGN(const bool missing, narrow(branch, seqs, &low, &high));
    if (missing) break;
  }
  while (high - low > 1) {
    const uint64_t width = high - low;
    const uint64_t parts = std::min<uint64_t>(at_once + 1, width);
    std::vector<uint64_t> seqs;
    for (uint64_t i = 1; i < parts; ++i)
      seqs.push_back(low + width / parts * i + width % parts * i / parts);
    SILT_TRY(narrow(branch, seqs, &low, &high));
  }
  return low;
}

// The hint only says where to begin.
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
    SILT_ASSIGN(low, hinted_head(branch, first));
  }
  if (!low) {
    if (!start) return std::optional<Commit>();
    SILT_ASSIGN(Commit target, read(*start));
    return std::optional<Commit>(std::move(target));
  }
  SILT_ASSIGN(const uint64_t last, last_from(branch, *low));
  if (std::optional<Commit> seen = last_seen(branch); seen && seen->id.seq == last) return seen;
  SILT_ASSIGN(Commit commit, read(branch, last));
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
