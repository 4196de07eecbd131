// Publish, as a sentence: find the head; take the words it has from where they still lie; compare
// with the new ones; write what differs as packs; when the chain has grown too costly, write an
// anchor; last of all create the commit; only then move the base forward. What is written goes out
// while the rest is still being made, where the store is worth it; all of it before the commit.
#include <array>
#include <chrono>

#include "base/files.h"
#include "base/parallel.h"
#include "base/try.h"
#include "delta/diff.h"
#include "repo/anchor.h"
#include "repo/base.h"
#include "repo/base_cache.h"
#include "repo/bucket.h"
#include "repo/committing.h"
#include "repo/delta_writer.h"
#include "repo/keys.h"
#include "repo/objects.h"
#include "repo/retained.h"
#include "repo/schema_writer.h"
#include "repo/uploads.h"

namespace siltstone {

class Publisher {
 public:
  Publisher(Bucket& bucket, const Checkpoint& next, const PublishOptions& options)
      : bucket_(bucket),
        next_(next),
        next_bytes_(next),
        options_(options),
        uploads_(*bucket.store_, options.memory_bytes / 4),
        schema_writer_(*bucket.store_, bucket.history_, uploads_) {}
  // Uploads borrow what else this holds.
  ~Publisher() { uploads_.cancel(); }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  Result<PublishReport> run();

 private:
  Result<std::optional<Commit>> known_head();
  Status find_head();
  Status describe();
  bool same_tensors() const;
  Status write_changes();
  Result<Base> open_base(bool from_bucket);
  Status write_delta_from(Base& base);
  bool uses_momentum() const;
  bool may_look_back() const;
  std::shared_ptr<Store> store_for_way_back() const;
  bool anchor_is_due();
  Status write_new_anchor();
  DeltaOptions delta_options(const char* name) const;
  Status shorten_lists();
  Status commit();
  void remember();

  // Several requests at once are worth it, and each that can be left out.
  bool behind_network() const { return bucket_.store_->traits().transfers > 1; }
  std::string nonce_prefix() const {
    return attempt_prefix(commit_.id.branch, commit_.epoch, commit_.id.seq, commit_.attempt);
  }

  Bucket& bucket_;
  const Checkpoint& next_;
  const CheckpointBytes next_bytes_;
  const PublishOptions& options_;
  const Codec* codec_ = nullptr;
  std::filesystem::path cache_folder_;
  BaseCache cache_{cache_folder_};
  std::optional<Commit> head_;
  std::shared_ptr<const Schema> head_schema_;
  Schema schema_;
  std::vector<Sum128> sums_;  // of the new state
  Commit commit_;
  std::optional<WayBack> back_;        // from the new state
  uint64_t chain_bytes_ = UINT64_MAX;  // from what the cache keeps to the new state
  PublishReport report_;
  Uploads uploads_;
  SchemaWriter schema_writer_;
};

// Whoever committed last need not ask: if somebody else has taken the branch over meanwhile, the
// commit will be refused.
Result<std::optional<Commit>> Publisher::known_head() {
  const std::string& branch = options_.branch;
  if (behind_network() && !options_.parent) {
    std::optional<Commit> seen = bucket_.history_.last_seen(branch);
    const std::lock_guard lock(bucket_.mutex_);
    const auto writer = bucket_.writers_.find(branch);
    const bool certain = seen && writer != bucket_.writers_.end() && writer->second.certain &&
                         writer->second.last == seen->id;
    if (certain) return seen;
  }
  return bucket_.history_.head(branch);
}

Status Publisher::find_head() {
  const std::string& branch = options_.branch;
  if (!is_ref_name(branch)) {
    return Error{Code::kInvalidArgument, "'" + branch + "' is not a legal branch name"};
  }
  if (!options_.codec.empty()) {
    codec_ = find_codec(options_.codec);
    if (codec_ == nullptr) {
      return Error{Code::kInvalidArgument, "there is no codec '" + options_.codec + "'"};
    }
  }
  SILT_ASSIGN(head_, known_head());
  if (options_.parent) {
    SILT_ASSIGN(const Version expected, bucket_.resolve(*options_.parent));
    if (!head_ || expected.id != head_->id) {
      return Error{Code::kConflict, "the head of '" + branch + "' is " +
                                        (head_ ? head_->id.name() : "nothing") + ", not " +
                                        expected.id.name() + ": somebody else committed"};
    }
  }
  uint64_t epoch = head_ ? head_->epoch + 1 : 0;
  const std::lock_guard lock(bucket_.mutex_);
  if (const auto writer = bucket_.writers_.find(branch); writer != bucket_.writers_.end()) {
    if (!head_ || writer->second.last != head_->id) {
      bucket_.writers_.erase(writer);
      return Error{Code::kConflict, "another writer has taken branch '" + branch + "' over (" +
                                        (head_ ? head_->id.name() : "no version") +
                                        " is not ours); publish again to continue from there"};
    }
    epoch = writer->second.epoch;
  }
  std::array<std::byte, 16> attempt;
  random_bytes(attempt);
  commit_.repo_id = bucket_.repo_id_;
  commit_.id.branch = branch;
  commit_.id.seq = head_ ? head_->id.seq + 1 : 0;
  commit_.epoch = epoch;
  commit_.attempt = to_hex(attempt);
  if (head_) commit_.parent = head_->id;
  commit_.message = options_.message;
  commit_.step = options_.step;
  commit_.time = utc_now();
  return {};
}

Status Publisher::describe() {
  schema_.files.assign(next_.files().begin(), next_.files().end());
  schema_.tensors.assign(next_.tensors().begin(), next_.tensors().end());
  for (const WeightFile& file : schema_.files) {
    if (is_safe_path(file.path)) continue;
    return Error{Code::kInvalidArgument, "'" + file.path + "' is not a path that can be published"};
  }
  report_.total_elements = schema_.total_elements();
  report_.total_bytes = schema_.total_bytes();
  if (!options_.cache.empty()) {
    cache_folder_ = options_.cache / bucket_.repo_id_ / options_.branch;
    cache_ = BaseCache(cache_folder_);
  }
  if (head_) {
    SILT_ASSIGN(head_schema_, bucket_.history_.schema(head_->schema));
  }
  return {};
}

bool Publisher::same_tensors() const {
  return head_schema_ != nullptr && head_schema_->tensors == schema_.tensors;
}

bool Publisher::uses_momentum() const {
  return options_.momentum && (options_.effort != Effort::kFast || codec_ != nullptr);
}

bool Publisher::may_look_back() const {
  return uses_momentum() && wants_way_back(*head_);
}

std::shared_ptr<Store> Publisher::store_for_way_back() const {
  if (!uses_momentum()) return nullptr;
  if (options_.retained != nullptr) return memory_for_way_back();
  return cache_folder_.empty() ? nullptr : disk_for_way_back(cache_folder_);
}

Result<Base> Publisher::open_base(bool from_bucket) {
  const BaseOptions options{options_.threads, options_.memory_bytes, may_look_back()};
  const std::span<const TensorInfo> tensors = schema_.tensors;
  if (!from_bucket && options_.retained != nullptr) {
    KnownState known = retained_state(*options_.retained);
    if (known.bytes != nullptr) {
      SILT_ASSIGN(std::optional<Base> base,
                  base_from_known(bucket_, *head_, tensors, std::move(known), options));
      if (base) return *std::move(base);
    }
  }
  if (!from_bucket && !options_.cache.empty()) {
    if (std::optional<BaseCache::Kept> kept = cache_.load()) {
      KnownState known;
      known.bytes = std::make_unique<CheckpointBytes>(*kept->checkpoint);
      known.kept = std::move(kept->checkpoint);
      known.sums = std::move(kept->sums);
      known.root = kept->root;
      if (options.earlier) known.back = find_way_back(cache_folder_, known.root);
      known.description =
          std::string(kept->copied ? "a copy" : "hard links") + " of " + kept->id.name();
      const bool same = std::equal(tensors.begin(), tensors.end(), known.kept->tensors().begin(),
                                   known.kept->tensors().end());
      if (same) {
        Result<std::optional<Base>> base =
            base_from_known(bucket_, *head_, tensors, std::move(known), options);
        if (base && *base) return **std::move(base);
      }
    }
  }
  return base_from_bucket(bucket_, *head_, tensors, /*prove=*/false, options);
}

// Of packs named `name`-0, `name`-1 and so on.
DeltaOptions Publisher::delta_options(const char* name) const {
  DeltaOptions options;
  options.key_prefix = nonce_prefix() + name + "-";
  options.packs.pack_bytes = bucket_.tuning.pack_bytes;
  if (behind_network())
    options.packs.pack_bytes = std::min(options.packs.pack_bytes, bucket_.tuning.remote_pack_bytes);
  options.packs.tables_from_bytes = bucket_.tuning.tables_from_bytes;
  options.batch_bytes = bucket_.tuning.batch_bytes;
  options.memory_bytes = options_.memory_bytes;
  options.threads = options_.threads;
  options.effort = options_.effort;
  options.progress = options_.progress;
  return options;
}

Status Publisher::write_delta_from(Base& base) {
  const StateReader reader = base.reader(schema_.tensors);
  DeltaOptions options = delta_options("0");
  options.from_root = head_->root;
  options.codec = codec_;
  options.back = store_for_way_back();
  // A state that two branches came to by different ways has two versions before it.
  if (may_look_back() && base.chain->links() == 0 &&
      base.back_root == head_->find(ArtifactKind::kDelta)->from_root) {
    options.earlier = base.earlier.get();
  }
  SILT_ASSIGN(DeltaOutcome outcome,
              write_delta(*bucket_.store_, uploads_, reader, *base.bytes, next_bytes_, options));
  for (size_t t = 0; t < schema_.tensors.size(); ++t) {
    if (outcome.sums_before[t] == base.sums[t]) continue;
    return Error{Code::kMismatch, base.description + ": tensor '" + schema_.tensors[t].name +
                                      "' has changed since it was published"};
  }
  sums_ = std::move(outcome.sums_after);
  commit_.root = state_root(state_rows(schema_.tensors, sums_));
  outcome.artifact.to_root = commit_.root;
  outcome.artifact.momentum = outcome.back.has_value();
  if (outcome.looks_back) outcome.artifact.earlier_root = base.back_root;
  back_ = std::move(outcome.back);
  if (back_) back_->artifact.from_root = commit_.root;
  report_.kind = ArtifactKind::kDelta;
  report_.bytes_written += outcome.bytes_written;
  report_.section_bytes = outcome.artifact.section_bytes;
  report_.changed_elements = outcome.artifact.changed_elements;
  report_.base = base.description;
  if (base.kept) chain_bytes_ = base.chain->size_bytes() + outcome.artifact.bytes;
  commit_.artifacts.push_back(std::move(outcome.artifact));
  return {};
}

// A base that turns out to be damaged is given up for the bucket's own state, and that for an
// anchor: a publish repairs what it can.
Status Publisher::write_changes() {
  if (!same_tensors()) {
    report_.base = head_ ? "nothing: the set of tensors changed" : "nothing: the first version";
    return {};
  }
  for (const bool from_bucket : {false, true}) {
    Result<Base> base = open_base(from_bucket);
    Status written = base ? write_delta_from(*base) : Status(std::move(base).error());
    if (written) return {};
    const Code code = written.error().code;
    if (code != Code::kMismatch && code != Code::kCorrupt && code != Code::kUnsupported) {
      return written;
    }
    report_.base = "nothing: " + written.error().message;
    if (!from_bucket) cache_.forget();
    // A new attempt's objects must not meet those of the one given up.
    uploads_.cancel();
    std::array<std::byte, 16> attempt;
    random_bytes(attempt);
    commit_.attempt = to_hex(attempt);
  }
  return {};
}

bool Publisher::anchor_is_due() {
  if (commit_.artifacts.empty()) return true;
  const Result<Path> path = plan_path(bucket_.history_, *head_, std::nullopt);
  if (!path) return true;
  const Artifact& delta = commit_.artifacts.front();
  const uint64_t anchor_bytes = path->anchor->find(ArtifactKind::kAnchor)->bytes;
  const uint64_t chain = path->bytes - anchor_bytes + delta.bytes;
  return chain > anchor_bytes / 2 || path->links.size() + 1 > bucket_.tuning.path_objects;
}

Status Publisher::write_new_anchor() {
  if (commit_.artifacts.empty()) {
    SILT_ASSIGN(sums_, sum_all(schema_.tensors, next_bytes_, options_.threads));
    commit_.root = state_root(state_rows(schema_.tensors, sums_));
    report_.kind = ArtifactKind::kAnchor;
    report_.changed_elements = report_.total_elements;
  }
  Artifact anchor;
  if (options_.pack_anchors) {
    SILT_ASSIGN(anchor, write_packed_anchor(*bucket_.store_, uploads_, schema_.tensors, next_bytes_,
                                            sums_, commit_.root, delta_options("a")));
  } else {
    AnchorOptions options;
    options.key_prefix = nonce_prefix();
    options.object_bytes = bucket_.tuning.anchor_object_bytes;
    if (behind_network())
      options.object_bytes =
          std::min(options.object_bytes, bucket_.tuning.remote_anchor_object_bytes);
    options.threads = options_.threads;
    options.memory_bytes = options_.memory_bytes / 4;
    options.progress = options_.progress;
    SILT_ASSIGN(anchor, write_anchor(*bucket_.store_, schema_.tensors, next_bytes_, sums_,
                                     commit_.root, options));
  }
  report_.bytes_written += anchor.bytes;
  commit_.artifacts.push_back(std::move(anchor));
  return {};
}

// A commit has at most 64 KiB: many objects stand in a list beside them.
Status Publisher::shorten_lists() {
  size_t number = 0;
  for (Artifact& artifact : commit_.artifacts) {
    if (artifact.objects.size() <= bucket_.tuning.inline_objects) continue;
    std::string text = format_object_list(artifact.objects);
    ObjectRef list;
    list.key = nonce_prefix() + "list-" + std::to_string(number++) + ".json";
    list.length_bytes = text.size();
    list.sha256 = sha256_hex(as_bytes(text));
    report_.bytes_written += text.size();
    SILT_TRY(uploads_.add(list.length_bytes, [this, list, text = std::move(text)] {
      return create_unique(*bucket_.store_, list.key, PiecesSource({as_bytes(text)}, list.sha256));
    }));
    artifact.objects.clear();
    artifact.lists.push_back(std::move(list));
  }
  return {};
}

Status Publisher::commit() {
  const std::string& branch = commit_.id.branch;
  Result<Committed> committed = create_commit(*bucket_.store_, commit_);
  const std::lock_guard lock(bucket_.mutex_);
  if (!committed) {
    // Lost to another writer, the branch is theirs; lost from sight, the head must be asked for.
    const auto writer = bucket_.writers_.find(branch);
    if (writer != bucket_.writers_.end()) writer->second.certain = false;
    if (committed.error().code == Code::kConflict) bucket_.writers_.erase(branch);
    return std::move(committed).error();
  }
  commit_.id = committed->id;
  report_.bytes_written += committed->text.size() + schema_writer_.bytes_written();
  report_.version = commit_.version();
  report_.single_writer = !bucket_.store_->traits().create_exclusive;
  bucket_.writers_[branch] = {commit_.epoch, commit_.id};
  const Result<Commit> stored =
      parse_commit(committed->text, bucket_.repo_id_, branch, commit_.id.seq);
  if (stored) bucket_.history_.keep(*stored);
  if (!bucket_.history_.knows_schema(commit_.schema))
    bucket_.history_.keep_schema(commit_.schema, schema_);
  return {};
}

// After the commit nothing may fail the publish: hints and caches are best effort.
void Publisher::remember() {
  bucket_.hints_.write(commit_.id);
  if (options_.retained != nullptr) {
    promote(*options_.retained, schema_.tensors, next_bytes_, sums_, commit_.id, commit_.root,
            std::move(back_), options_.threads);
  } else if (!options_.cache.empty()) {
    cache_.keep(next_, commit_.id, commit_.root, sums_, bucket_.store_->traits().local,
                chain_bytes_);
    if (back_) (void)record_way_back(*back_);
    sweep_ways_back(cache_folder_, commit_.root);
  }
}

Result<PublishReport> Publisher::run() {
  const auto start = std::chrono::steady_clock::now();
  SILT_TRY(bucket_.prove_fit());
  SILT_TRY(find_head());
  SILT_TRY(describe());
  SILT_TRY(write_changes());
  if (anchor_is_due()) SILT_TRY(write_new_anchor());
  SILT_ASSIGN(commit_.schema, schema_writer_.write(next_, head_schema_.get(), &schema_));
  SILT_TRY(shorten_lists());
  SILT_TRY(uploads_.finish());
  SILT_TRY(next_.check_unchanged());
  SILT_TRY(commit());
  remember();
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(report_);
}

Result<PublishReport> Bucket::publish(const Checkpoint& next, const PublishOptions& options) {
  {
    const std::lock_guard lock(mutex_);
    bool& busy = publishing_[options.branch];
    if (busy) {
      return Error{Code::kConflict,
                   "another publish to '" + options.branch + "' is running in this process"};
    }
    busy = true;
  }
  Result<PublishReport> report = Publisher(*this, next, options).run();
  const std::lock_guard lock(mutex_);
  publishing_[options.branch] = false;
  return report;
}

}  // namespace siltstone
