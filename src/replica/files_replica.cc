#include "replica/files_replica.h"

#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>

#include "base/try.h"
#include "replica/folder_bytes.h"
#include "repo/checkout.h"
#include "repo/plan.h"
#include "repo/rebuild.h"
#include "repo/weight_files.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxRecordBytes = uint64_t{512} << 20;
constexpr std::string_view kRepairHint =
    "; pull with --repair to rebuild the folder from the bucket";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool same_layout(const Schema& x, const Schema& y) {
  return std::equal(x.files.begin(), x.files.end(), y.files.begin(), y.files.end(),
                    [](const WeightFile& a, const WeightFile& b) {
                      return a.path == b.path && a.header == b.header;
                    });
}

bool same_file(const FileStat& x, const FileStat& y) {
  return x.inode == y.inode && x.size_bytes == y.size_bytes && x.mtime_ns == y.mtime_ns;
}

// Best effort: what goes on from there without it goes on from an anchor.
void keep_way_back(const Commit& from, WayBackWriter* writer) {
  const Result<WayBack> way = writer->finish(from.root, from.find(ArtifactKind::kDelta)->from_root);
  if (way) (void)record_way_back(*way);
}

}  // namespace

struct FilesReplica::Change final : Staged {
  const Version& target() const override { return journal.record.version; }
  uint64_t bytes_fetched() const override { return fetched; }
  uint64_t changed_elements() const override { return changed; }
  double seconds() const override { return elapsed; }

  ~Change() override {
    std::error_code ignored;
    if (!stage_folder.empty()) fs::remove_all(stage_folder, ignored);
  }

  ReplicaJournal journal;
  fs::path stage_folder;  // removed with the change unless it was committed
  uint64_t fetched = 0;
  uint64_t changed = 0;
  double elapsed = 0;
};

Status FilesReplica::lock() {
  SILT_TRY(make_directories(folder_ / ".siltstone"));
  const fs::path path = own("lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return os_error(errno, "open", path);
  lock_ = File(fd, path);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return {};
  if (errno != EWOULDBLOCK) return os_error(errno, "lock", path);
  return Error{Code::kConflict,
               "'" + folder_.string() + "' is being pulled into by another process"};
}

Result<std::unique_ptr<Replica>> FilesReplica::open(const fs::path& folder, Bucket& bucket) {
  auto replica = std::unique_ptr<FilesReplica>(new FilesReplica(fs::absolute(folder)));
  std::error_code error;
  const bool had_files = fs::exists(folder, error) && !fs::is_empty(folder, error);
  SILT_TRY(replica->lock());
  SILT_TRY(replica->finish_journal());
  replica->remove_leftovers();
  const fs::path record = replica->own("replica.json");
  Result<std::string> text = read_file(record, kMaxRecordBytes);
  if (text) {
    Result<ReplicaRecord> parsed = parse_replica(*text);
    if (!parsed) return std::move(parsed).error().in("'" + record.string() + "'");
    if (parsed->repo_id != bucket.repo_id()) {
      return Error{Code::kMismatch, "'" + folder.string() + "' follows another repository (" +
                                        parsed->repo_id + ", not " + bucket.repo_id() + ")"};
    }
    replica->record_ = *std::move(parsed);
  } else if (text.error().code != Code::kNotFound) {
    return std::move(text).error();
  } else if (had_files) {
    SILT_TRY(replica->adopt_existing(bucket));
  }
  sweep_ways_back(replica->own(""), replica->record_ ? replica->record_->version.root : "");
  return std::unique_ptr<Replica>(std::move(replica));
}

// A model that somebody copied here is as good as pulled, if it is a version of the repository.
Status FilesReplica::adopt_existing(Bucket& bucket) {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename() != ".siltstone") foreign_ = true;
  }
  if (!foreign_) return {};
  const Result<std::unique_ptr<Checkpoint>> checkpoint = open_checkpoint(folder_);
  if (!checkpoint) return {};
  const std::span<const TensorInfo> tensors = (*checkpoint)->tensors();
  SILT_ASSIGN(std::vector<Sum128> sums, sum_all(tensors, CheckpointBytes(**checkpoint), 0));
  const std::string root = state_root(state_rows(tensors, sums));
  const Result<Commit> commit = bucket.history().resolve({VersionRef::Kind::kRoot, root, 0});
  if (!commit) return {};
  ReplicaRecord record;
  record.repo_id = bucket.repo_id();
  record.version = commit->version();
  record.schema = commit->schema;
  record.sums = std::move(sums);
  record_ = std::move(record);
  foreign_ = false;
  return {};
}

Status FilesReplica::finish_journal() {
  const fs::path path = own("journal.json");
  Result<std::string> text = read_file(path, kMaxRecordBytes);
  if (!text && text.error().code == Code::kNotFound) return {};
  if (!text) return std::move(text).error();
  Result<ReplicaJournal> journal = parse_journal(*text);
  if (!journal) return std::move(journal).error().in("'" + path.string() + "'");
  SILT_TRY(apply_journal(*journal));
  record_ = std::move(journal->record);
  return {};
}

// Every step may have been done already by a run that was cut off. A weight file is swapped with
// the old one, whose gigabytes are freed after the commit; by its record it is known whether it
// was.
Status FilesReplica::apply_journal(const ReplicaJournal& journal) {
  const fs::path stage = own(journal.stage);
  const auto in_place = [this](const ReplicaRecord::Seen& file) {
    const Result<FileStat> now = stat_file(folder_ / file.path);
    return now && same_file(*now, file.stat);
  };
  std::set<std::string> done;
  for (const ReplicaRecord::Seen& file : journal.record.files) {
    if (in_place(file) || exchange_files(stage / file.path, folder_ / file.path)) {
      done.insert(file.path);
    }
  }
  std::set<fs::path> folders = {folder_};
  for (const std::string& path : journal.renames) {
    const fs::path to = folder_ / path;
    folders.insert(to.parent_path());
    if (done.contains(path)) continue;
    SILT_TRY(make_directories(to.parent_path()));
    Status renamed = rename_file(stage / path, to);
    if (!renamed && renamed.error().code != Code::kNotFound) return renamed;
  }
  for (const ReplicaRecord::Seen& file : journal.record.files) {
    if (in_place(file)) continue;
    return Error{Code::kMismatch,
                 "'" + file.path + "' is not the file that was staged" + std::string(kRepairHint)};
  }
  for (const std::string& path : journal.removals) {
    if (::unlink((folder_ / path).c_str()) != 0 && errno != ENOENT) {
      return os_error(errno, "remove", folder_ / path);
    }
    folders.insert((folder_ / path).parent_path());
  }
  for (const fs::path& folder : folders) {
    std::error_code error;
    if (fs::is_directory(folder, error)) SILT_TRY(sync_directory(folder));
  }
  SILT_TRY(replace_file(own("replica.json"), as_bytes(format_replica(journal.record))));
  if (::unlink(own("journal.json").c_str()) != 0 && errno != ENOENT) {
    return os_error(errno, "remove", own("journal.json"));
  }
  return sync_directory(folder_ / ".siltstone");
}

void FilesReplica::remove_leftovers() {
  std::error_code error;
  std::vector<fs::path> stale;
  for (fs::directory_iterator at(folder_ / ".siltstone", error), end; !error && at != end;
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with("stage-") || name.starts_with(".replica.json.") ||
        name.starts_with(".journal.json.")) {
      stale.push_back(at->path());
    }
  }
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

std::optional<Version> FilesReplica::version() const {
  if (!record_) return std::nullopt;
  return record_->version;
}

Result<std::unique_ptr<Staged>> FilesReplica::stage(Repository& repository, const Version& target,
                                                    const StageOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Bucket& bucket = as_bucket(repository);
  SILT_TRY(finish_journal());
  if (foreign_ && !options.repair) {
    return Error{Code::kMismatch,
                 "'" + folder_.string() +
                     "' is not empty and holds no version of this repository; name "
                     "another folder, or replace its model with --repair"};
  }
  SILT_ASSIGN(const Commit commit, bucket.history().read(target.id));
  std::unique_ptr<const Chain> back;
  SILT_ASSIGN(const Path path, plan(bucket, commit, options, &back));
  auto change = std::make_unique<Change>();
  change->journal.stage = unique_name("stage-");
  change->stage_folder = own(change->journal.stage);
  SILT_TRY(make_directories(change->stage_folder));
  ReplicaRecord& record = change->journal.record;
  record.repo_id = bucket.repo_id();
  record.version = commit.version();
  record.schema = commit.schema;
  if (path.anchor) {
    SILT_TRY(stage_all(bucket, commit, options, change.get()));
  } else {
    Status staged = stage_links(bucket, commit, path, back.get(), options, change.get());
    if (!staged && staged.error().code == Code::kMismatch) {
      return Error{Code::kMismatch, "'" + folder_.string() + "' no longer holds " +
                                        record_->version.id.name() + ": " + staged.error().message +
                                        std::string(kRepairHint)};
    }
    SILT_TRY(std::move(staged));
  }
  SILT_TRY(sync_folders(change->stage_folder));
  change->elapsed = seconds_since(start);
  return std::unique_ptr<Staged>(std::move(change));
}

Result<Path> FilesReplica::plan(Bucket& bucket, const Commit& target, const StageOptions& options,
                                std::unique_ptr<const Chain>* back) const {
  if (!record_ || options.repair) return plan_path(bucket.history(), target, std::nullopt);
  const Result<Commit> held = bucket.history().read(record_->version.id);
  if (!held) return held.error().in("the version that '" + folder_.string() + "' holds");
  KnownRoots known{record_->version.root, {}};
  const std::optional<WayBack> way = find_way_back(own(""), known.root);
  if (way) known.earlier_root = way->artifact.to_root;
  SILT_ASSIGN(Path path, plan_path(bucket.history(), target, known));
  if (path.earlier_root().empty()) return path;
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(record_->schema));
  Result<std::unique_ptr<const Chain>> chain =
      Chain::load(*way, schema->tensors, {options.threads, options.memory_bytes / 8});
  if (!chain) return plan_path(bucket.history(), target, KnownRoots{known.root, {}});
  *back = *std::move(chain);
  return path;
}

// Rewrites the weight files that the links touch (all, if files were laid out anew). Files that
// stay are trusted as long as nobody touched them since, and read for proof otherwise.
Status FilesReplica::stage_links(Bucket& bucket, const Commit& target, const Path& path,
                                 const Chain* back, const StageOptions& options, Change* change) {
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(target.schema));
  SILT_ASSIGN(const std::shared_ptr<const Schema> old, bucket.history().schema(record_->schema));
  if (old->tensors != schema->tensors || record_->sums.size() != schema->tensors.size()) {
    return Error{Code::kMismatch, "its record has other tensors than the version"};
  }
  SILT_ASSIGN(const std::unique_ptr<FolderBytes> bytes, FolderBytes::open(folder_, *old));
  Meter meter(options.progress, schema->total_bytes());
  SILT_ASSIGN(const std::unique_ptr<const Chain> chain,
              Chain::load(bucket.store(), path.links, schema->tensors,
                          {options.threads, options.memory_bytes / 4, &meter,
                           bucket.tuning.overlap_bytes}));
  const StateReader earlier(schema->tensors, *bytes, back);
  const StateReader reader(schema->tensors, *bytes, chain.get(),
                           back != nullptr ? &earlier : nullptr);
  std::optional<WayBackWriter> way_back;
  if (wants_way_back(target)) way_back.emplace(disk_for_way_back(own("")));
  const bool same = same_layout(*old, *schema);
  ReplicaRecord& record = change->journal.record;
  std::vector<size_t> rewritten;
  std::vector<size_t> tensors;
  for (size_t f = 0; f < schema->files.size(); ++f) {
    const WeightFile& file = schema->files[f];
    const bool touched = std::any_of(
        file.entries.begin(), file.entries.end(),
        [&reader](const WeightFile::Entry& entry) { return reader.touches(entry.tensor); });
    bool proven = false;
    if (same && !touched) {
      SILT_ASSIGN(const FileStat now, bytes->file(f).stat());
      const auto seen = std::find_if(record_->files.begin(), record_->files.end(),
                                     [&file](const auto& item) { return item.path == file.path; });
      proven = seen != record_->files.end() && same_file(seen->stat, now);
      record.files.push_back({file.path, now});
    } else {
      rewritten.push_back(f);
      change->journal.renames.push_back(file.path);
    }
    for (const WeightFile::Entry& entry : file.entries) {
      if (proven) {
        SILT_TRY(meter.add(schema->tensors[entry.tensor].size_bytes));
      } else {
        tensors.push_back(entry.tensor);
      }
    }
  }
  SILT_ASSIGN(WeightFiles files, WeightFiles::create(*schema, rewritten, change->stage_folder));
  SILT_ASSIGN(const Rebuilt rebuilt,
              rebuild(reader, tensors,
                      {.threads = options.threads,
                       .memory_bytes = options.memory_bytes,
                       .meter = &meter,
                       .back = way_back ? &*way_back : nullptr},
                      [&files](size_t tensor, uint64_t offset, ByteSpan words, bool) {
                        return files.write(tensor, offset, words);
                      }));
  record.sums = record_->sums;
  for (const size_t tensor : tensors) {
    if (rebuilt.before[tensor] != record_->sums[tensor]) {
      return Error{Code::kMismatch, "tensor '" + schema->tensors[tensor].name + "' was changed"};
    }
    record.sums[tensor] = rebuilt.after[tensor];
  }
  if (state_root(state_rows(schema->tensors, record.sums)) != target.root) {
    return Error{Code::kCorrupt, "what was staged is not " + target.id.name()};
  }
  SILT_TRY(files.finish(options.threads));
  for (const size_t f : rewritten) {
    const std::string& name = schema->files[f].path;
    SILT_ASSIGN(const FileStat stat, stat_file(change->stage_folder / name));
    record.files.push_back({name, stat});
  }
  if (way_back) keep_way_back(target, &*way_back);
  change->fetched = chain->size_bytes();
  change->changed = chain->changed_elements();
  return stage_companions(bucket, *schema, old.get(), change);
}

Status FilesReplica::stage_all(Bucket& bucket, const Commit& target, const StageOptions& options,
                               Change* change) {
  CheckoutReport report;
  ReplicaRecord& record = change->journal.record;
  std::optional<WayBackWriter> way_back;
  if (wants_way_back(target)) way_back.emplace(disk_for_way_back(own("")));
  SILT_ASSIGN(record.sums,
              write_version(bucket, target, change->stage_folder,
                            {false, options.threads, options.memory_bytes, options.progress},
                            way_back ? &*way_back : nullptr, &report));
  if (way_back) keep_way_back(target, &*way_back);
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(target.schema));
  for (const WeightFile& file : schema->files) {
    SILT_ASSIGN(const FileStat stat, stat_file(change->stage_folder / file.path));
    record.files.push_back({file.path, stat});
    change->journal.renames.push_back(file.path);
  }
  for (const CompanionRef& companion : schema->companions) {
    change->journal.renames.push_back(companion.path);
  }
  change->fetched = report.bytes_fetched;
  change->changed = schema->total_elements();
  std::shared_ptr<const Schema> old;
  if (record_) {
    SILT_ASSIGN(old, bucket.history().schema(record_->schema));
  }
  return stage_companions(bucket, *schema, old.get(), change);
}

// Companions that are new or different, and removal of files that the version no longer has.
Status FilesReplica::stage_companions(Bucket& bucket, const Schema& schema, const Schema* old,
                                      Change* change) {
  ReplicaJournal& journal = change->journal;
  const std::set<std::string> renamed(journal.renames.begin(), journal.renames.end());
  std::set<std::string> kept;
  std::vector<const CompanionRef*> wanted;
  for (const WeightFile& file : schema.files) kept.insert(file.path);
  for (const CompanionRef& companion : schema.companions) {
    kept.insert(companion.path);
    if (renamed.contains(companion.path)) continue;
    const bool had = old != nullptr && std::any_of(old->companions.begin(), old->companions.end(),
                                                   [&companion](const CompanionRef& other) {
                                                     return other.path == companion.path &&
                                                            other.sha256 == companion.sha256;
                                                   });
    const Result<FileStat> there = stat_file(folder_ / companion.path);
    if (had && there && there->size_bytes == companion.size_bytes) continue;
    wanted.push_back(&companion);
    journal.renames.push_back(companion.path);
  }
  SILT_ASSIGN(const uint64_t bytes,
              write_companions(*bucket.store(), wanted, change->stage_folder));
  change->fetched += bytes;
  if (old == nullptr) return {};
  for (const WeightFile& file : old->files) {
    if (!kept.contains(file.path)) journal.removals.push_back(file.path);
  }
  for (const CompanionRef& companion : old->companions) {
    if (!kept.contains(companion.path)) journal.removals.push_back(companion.path);
  }
  return {};
}

CommitReport FilesReplica::commit(std::unique_ptr<Staged> staged) {
  const auto start = std::chrono::steady_clock::now();
  auto& change = static_cast<Change&>(*staged);
  CommitReport report;
  report.version = change.journal.record.version;
  report.status = replace_file(own("journal.json"), as_bytes(format_journal(change.journal)));
  if (!report.status) {
    // A journal that may have reached the disk must not outlive the files it speaks of.
    if (::unlink(own("journal.json").c_str()) != 0 && errno != ENOENT) change.stage_folder.clear();
    return report;
  }
  report.status = apply_journal(change.journal);
  if (report.status) {
    report.outcome = Outcome::kApplied;
    record_ = std::move(change.journal.record);
    foreign_ = false;
    sweep_ways_back(own(""), record_->version.root);
  } else {
    report.outcome = Outcome::kPoisoned;
    change.stage_folder.clear();  // the journal needs it
    report.status = report.status.error().in("'" + folder_.string() +
                                             "' is between two versions until it is pulled again");
  }
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace siltstone
