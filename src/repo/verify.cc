// Verify: does the bucket hold what its commits promise?
#include <mutex>
#include <set>

#include "base/parallel.h"
#include "base/try.h"
#include "repo/anchor.h"
#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/objects.h"
#include "repo/rebuild.h"
#include "repo/weight_files.h"

namespace siltstone {
namespace {

class Verifier {
 public:
  Verifier(Bucket& bucket, const VerifyOptions& options) : bucket_(bucket), options_(options) {}

  Result<VerifyReport> run();

 private:
  using Log = std::vector<Commit>;  // oldest first

  Status check_branch(const std::string& branch);
  Result<Log> walk(const Commit& newest);
  void check_version(const Commit& commit);
  void check_objects(const Commit& commit, const Artifact& artifact);
  void check_data(const std::string& where, const std::vector<ObjectRef>& objects);
  void check_schema(const Commit& commit);
  Status rebuild_all(const Log& log);
  Status rebuild_segment(const Commit& anchor, const Log& links);

  void problem(const std::string& where, const std::string& message) {
    const std::lock_guard lock(mutex_);
    report_.problems.push_back(where + ": " + message);
  }
  bool wanted(const Commit& commit) const { return !only_ || commit.id == only_->id; }

  Bucket& bucket_;
  const VerifyOptions& options_;
  std::optional<Commit> only_;
  std::mutex mutex_;
  std::set<std::string> checked_;  // commit hashes, schemas, object keys
  std::set<std::string> rebuilt_;
  VerifyReport report_;
};

Result<Verifier::Log> Verifier::walk(const Commit& newest) {
  Log log;
  std::optional<Commit> commit = newest;
  while (commit) {
    log.push_back(*commit);
    Result<std::optional<Commit>> parent = bucket_.history().parent(*commit);
    if (!parent) {
      problem(commit->id.name(), parent.error().message);
      break;
    }
    commit = *std::move(parent);
  }
  return Log(log.rbegin(), log.rend());
}

void Verifier::check_objects(const Commit& commit, const Artifact& artifact) {
  const std::string where = commit.id.name();
  const Result<std::vector<ObjectRef>> objects = artifact_objects(*bucket_.store(), artifact);
  if (!objects) return problem(where, objects.error().message);
  const StoreTraits traits = bucket_.store()->traits();
  (void)parallel_for(objects->size(), traits.local ? options_.threads : traits.transfers,
                     [&](uint64_t i, unsigned) -> Status {
                       const Status status = check_length(*bucket_.store(), (*objects)[i]);
                       if (!status) problem(where, status.error().message);
                       return {};
                     });
  report_.objects += objects->size();
  if (options_.data) check_data(where, *objects);
}

// All together, as fast as the store gives them; one by one if something is wrong, to name all of
// it.
void Verifier::check_data(const std::string& where, const std::vector<ObjectRef>& objects) {
  std::vector<Promised> wanted;
  for (const ObjectRef& object : objects) {
    wanted.push_back({&object});
    report_.bytes += object.length_bytes;
  }
  if (prove_objects(*bucket_.store(), wanted, {options_.threads, options_.memory_bytes / 4}))
    return;
  for (const ObjectRef& object : objects) {
    // A wrong length has been named already.
    if (!check_length(*bucket_.store(), object)) continue;
    const Status status = prove_object(*bucket_.store(), object, nullptr);
    if (!status) problem(where, status.error().message);
  }
}

void Verifier::check_schema(const Commit& commit) {
  if (!checked_.insert("schema " + commit.schema).second) return;
  const Result<std::shared_ptr<const Schema>> schema = bucket_.history().schema(commit.schema);
  ++report_.objects;
  if (!schema) return problem(commit.id.name(), schema.error().message);
  for (const CompanionRef& companion : (*schema)->companions) {
    if (!checked_.insert("file " + companion.sha256).second) continue;
    ++report_.objects;
    const Result<std::string> content = fetch_companion(*bucket_.store(), companion);
    if (!content) problem(commit.id.name(), content.error().message);
    report_.bytes += companion.size_bytes;
  }
}

void Verifier::check_version(const Commit& commit) {
  if (!checked_.insert("commit " + commit.id.commit_hash).second) return;
  ++report_.versions;
  ++report_.objects;
  check_schema(commit);
  for (const Artifact& artifact : commit.artifacts) check_objects(commit, artifact);
}

// Decodes the links on top of the anchor, in one pass, and compares the root after each.
Status Verifier::rebuild_segment(const Commit& anchor, const Log& links) {
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket_.history().schema(anchor.schema));
  const std::span<const TensorInfo> tensors = schema->tensors;
  const bool packed = anchor.find(ArtifactKind::kAnchor)->packed;
  Meter meter(options_.progress, schema->total_bytes());
  RebuildOptions options{
      .threads = options_.threads, .memory_bytes = options_.memory_bytes, .meter = &meter};
  std::unique_ptr<StateBytes> bytes = std::make_unique<ZeroBytes>();
  if (!packed) {
    SILT_ASSIGN(std::unique_ptr<AnchorBytes> plain,
                AnchorBytes::open(bucket_.store(), anchor, tensors,
                                  {options_.threads, options_.memory_bytes / 4}));
    options.anchor = plain.get();
    bytes = std::move(plain);
  }
  SILT_ASSIGN(const std::unique_ptr<const Chain> chain,
              Chain::load(bucket_.store(), links, tensors,
                          {.threads = options_.threads,
                           .memory_bytes = options_.memory_bytes / 4,
                           .meter = &meter,
                           .overlap_bytes = bucket_.tuning.overlap_bytes,
                           .prove_chunks = true},
                          packed ? &anchor : nullptr));
  std::vector<std::vector<Sum128>> changes(chain->links(), std::vector<Sum128>(tensors.size()));
  std::mutex mutex;
  options.on_link = [&](size_t link, size_t tensor, const Sum128& change) {
    const std::lock_guard lock(mutex);
    changes[link][tensor] += change;
  };
  std::vector<size_t> all(tensors.size());
  for (size_t t = 0; t < all.size(); ++t) all[t] = t;
  const StateReader reader(tensors, *bytes, chain.get());
  SILT_ASSIGN(
      const Rebuilt rebuilt,
      rebuild(reader, all, options, [](size_t, uint64_t, ByteSpan, bool) -> Status { return {}; }));
  std::vector<Sum128> sums = rebuilt.before;
  auto change = changes.begin();
  const auto add_link = [&] {
    for (size_t t = 0; t < tensors.size(); ++t) sums[t] += (*change)[t];
    ++change;
  };
  if (packed) add_link();
  if (state_root(state_rows(tensors, sums)) != anchor.root) {
    problem(anchor.id.name(), "its anchor's words do not have the version's root");
  }
  for (const Commit& link : links) {
    add_link();
    if (state_root(state_rows(tensors, sums)) != link.root) {
      problem(link.id.name(), "rebuilding it gives another root");
    }
  }
  return {};
}

Status Verifier::rebuild_all(const Log& log) {
  for (size_t i = 0; i < log.size(); ++i) {
    if (log[i].find(ArtifactKind::kAnchor) == nullptr) continue;
    Log links;
    bool fresh = wanted(log[i]) && rebuilt_.insert(log[i].id.commit_hash).second;
    for (size_t j = i + 1; j < log.size(); ++j) {
      if (log[j].fence) continue;
      if (log[j].find(ArtifactKind::kDelta) == nullptr) break;
      links.push_back(log[j]);
      fresh |= wanted(log[j]) && rebuilt_.insert(log[j].id.commit_hash).second;
      if (log[j].find(ArtifactKind::kAnchor) != nullptr) break;
    }
    if (!fresh) continue;
    const Status status = rebuild_segment(log[i], links);
    if (!status && status.error().code == Code::kCancelled) return status;
    if (!status) {
      const std::string last = links.empty() ? log[i].id.name() : links.back().id.name();
      problem(log[i].id.name() + " to " + last, status.error().message);
    }
  }
  return {};
}

Status Verifier::check_branch(const std::string& branch) {
  const Result<std::optional<Commit>> head = bucket_.history().head(branch);
  if (!head) {
    problem("branch " + branch, head.error().message);
    return {};
  }
  if (!*head) return {};
  SILT_ASSIGN(const Log log, walk(**head));
  for (const Commit& commit : log) {
    if (wanted(commit)) check_version(commit);
  }
  return options_.data ? rebuild_all(log) : Status();
}

Result<VerifyReport> Verifier::run() {
  std::vector<std::string> branches;
  if (options_.version) {
    SILT_ASSIGN(const VersionRef ref, VersionRef::parse(*options_.version));
    SILT_ASSIGN(only_, bucket_.history().resolve(ref));
    SILT_ASSIGN(const Log log, walk(*only_));
    check_version(*only_);
    if (options_.data) SILT_TRY(rebuild_all(log));
    return std::move(report_);
  }
  SILT_ASSIGN(branches, bucket_.history().branch_names());
  for (const std::string& branch : branches) SILT_TRY(check_branch(branch));
  const Result<std::vector<RefInfo>> tags = bucket_.history().tags();
  if (!tags) {
    problem("tags", tags.error().message);
  } else {
    for (const RefInfo& tag : *tags) {
      const Result<Commit> commit = bucket_.history().read(tag.target);
      if (!commit) problem("tag " + tag.name, commit.error().message);
    }
  }
  return std::move(report_);
}

}  // namespace

Result<VerifyReport> Bucket::verify(const VerifyOptions& options) {
  return Verifier(*this, options).run();
}

}  // namespace siltstone
