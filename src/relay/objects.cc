#include "relay/objects.h"

#include <algorithm>

#include "base/checksum.h"
#include "base/try.h"
#include "repo/objects.h"

namespace siltstone::relay {
namespace {

constexpr unsigned kLookupThreads = 4;
constexpr size_t kMaxHints = 1024;
constexpr uint64_t kHashPieceBytes = uint64_t{1} << 20;

using Clock = std::chrono::steady_clock;

Error absent(const ObjectName& name) {
  return {Code::kNotFound, "there is no object '" + name.text + "'"};
}

Result<std::string> read_whole(const File& file, uint64_t limit_bytes) {
  SILT_ASSIGN(const FileStat stat, file.stat());
  if (stat.size_bytes > limit_bytes) return Error{Code::kCorrupt, "it is too long"};
  std::string bytes(stat.size_bytes, '\0');
  SILT_TRY(file.read_at(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

// Whether the file holds what was promised.
Result<bool> matches(const File& file, const Promise& promise, const std::atomic<bool>& stop) {
  SILT_ASSIGN(const FileStat stat, file.stat());
  if (stat.size_bytes != promise.length_bytes) return false;
  std::vector<std::byte> piece(std::min(kHashPieceBytes, stat.size_bytes));
  Sha256 hash;
  for (uint64_t offset = 0; offset < stat.size_bytes; offset += piece.size()) {
    if (stop) return Error{Code::kUnavailable, "the relay is stopping"};
    const MutByteSpan part(piece.data(), std::min(piece.size(), stat.size_bytes - offset));
    SILT_TRY(file.read_at(offset, part));
    hash.update(part);
  }
  return to_hex(hash.finish()) == promise.sha256;
}

}  // namespace

Objects::Objects(Upstream& store, Cache& cache, Metrics& metrics, const ObjectsOptions& options)
    : store_(store),
      cache_(cache),
      metrics_(metrics),
      options_(options),
      absences_(options.life),
      catalog_([this](const ObjectName& name) { return read(name); },
               [this](const ObjectName& name, const std::string& bytes) -> Result<Commit> {
                 SILT_ASSIGN(const std::string id, repo_id());
                 return parse_commit(bytes, id, name.branch, name.seq);
               }),
      lookups_(kLookupThreads),
      fetches_(options.fetches) {}

Cache::Found Objects::open(const ObjectName& name) {
  if (absences_.holds(name)) {
    auto entry = std::make_shared<Entry>();
    entry->fail(absent(name));
    return {std::move(entry), {}};
  }
  if (name.kind == NameKind::kHead) return {hint(name), {}};
  Cache::Found found = cache_.find(name.text);
  if (found.made) {
    Workers& workers = name.sealed() ? lookups_ : fetches_;
    workers.post([this, name, entry = found.entry] {
      if (entry->claim()) run(name, *entry);
    });
  }
  return found;
}

// A hint is whatever the store held at most `life` ago.
std::shared_ptr<Entry> Objects::hint(const ObjectName& name) {
  const std::lock_guard lock(mutex_);
  if (hints_.size() >= kMaxHints) hints_.clear();
  Hint& hint = hints_[name.text];
  if (hint.entry && Clock::now() - hint.at <= options_.life &&
      hint.entry->view().state != Entry::State::kFailed) {
    return hint.entry;
  }
  hint = {std::make_shared<Entry>(), Clock::now()};
  lookups_.post([this, name, entry = hint.entry] { run_hint(name, entry); });
  return hint.entry;
}

void Objects::run_hint(const ObjectName& name, const std::shared_ptr<Entry>& entry) {
  const Clock::time_point asked = Clock::now();
  Result<std::string> bytes = store_.read_all(name.text, kMaxCommitBytes);
  if (bytes) {
    entry->finish(*std::move(bytes));
    return;
  }
  if (bytes.error().code == Code::kNotFound) absences_.absent(name, asked);
  entry->fail(std::move(bytes).error());
}

// Waits until the object is here or not; claims it if nobody has.
Entry::View Objects::done(const ObjectName& name, std::shared_ptr<const File>* file) {
  Cache::Found found = cache_.find(name.text);
  if (found.entry->claim()) {
    run(name, *found.entry);
  } else {
    found.entry->wait_until_done();
  }
  Entry::View view = found.entry->view();
  // Held through `found`, so it is not evicted in between.
  if (view.state == Entry::State::kWhole && !view.content) {
    *file = found.file ? found.file : cache_.find(name.text).file;
  }
  return view;
}

Result<std::string> Objects::read(const ObjectName& name) {
  if (absences_.holds(name)) return absent(name);
  std::shared_ptr<const File> file;
  const Entry::View view = done(name, &file);
  if (view.state == Entry::State::kFailed) return view.error;
  if (view.content) return *view.content;
  if (!file) return Error{Code::kUnavailable, "'" + name.text + "' was changed in the cache"};
  return read_whole(*file, kMaxListBytes);
}

Result<bool> Objects::look(const ObjectName& name) {
  std::shared_ptr<const File> file;
  const Entry::View view = done(name, &file);
  if (view.state == Entry::State::kWhole) return true;
  if (view.error.code == Code::kNotFound) return false;
  return view.error;
}

void Objects::run(const ObjectName& name, Entry& entry) {
  const Clock::time_point asked = Clock::now();
  Status brought =
      stopping_ ? Error{Code::kUnavailable, "the relay is stopping"} : bring(name, entry);
  if (brought) {
    absences_.present(name);
    return;
  }
  const bool missing = brought.error().code == Code::kNotFound;
  if (missing && name.sealed()) absences_.absent(name, asked);
  cache_.drop(name.text, entry, std::move(brought).error());
}

Status Objects::bring(const ObjectName& name, Entry& entry) {
  if (name.sealed()) return bring_record(name, entry);
  SILT_ASSIGN(const Promise promised, promise(name));
  SILT_ASSIGN(const bool adopted, adopt_data(name, promised, entry));
  if (adopted) return {};
  return bring_data(name, promised, entry);
}

Result<Promise> Objects::promise(const ObjectName& name) {
  if (name.kind == NameKind::kData) return catalog_.promise(name);
  SILT_ASSIGN(const uint64_t length, store_.size_bytes(name.text));
  if (length > kMaxObjectBytes) {
    return Error{Code::kCorrupt, "object '" + name.text + "' has " + std::to_string(length) +
                                     " bytes, more than 5 GiB"};
  }
  return Promise{length, name.sha256};
}

Result<bool> Objects::adopt_data(const ObjectName& name, const Promise& promised, Entry& entry) {
  const std::optional<File> file = cache_.leftover(name.text);
  if (!file) return false;
  const Result<bool> same = matches(*file, promised, stopping_);
  if (!same && same.error().code == Code::kUnavailable) return same.error();
  if (same && *same) {
    SILT_TRY(cache_.adopt(name.text, entry, *file));
    return true;
  }
  ++metrics_.damaged_in_cache;
  cache_.discard(name.text);
  return false;
}

Status Objects::bring_data(const ObjectName& name, const Promise& promised, Entry& entry) {
  const uint64_t length = promised.length_bytes;
  Result<File> made = cache_.make_file(name.text, length);
  if (!made) return std::move(made).error();
  const auto file = std::make_shared<File>(*std::move(made));
  entry.arrive(length, file);
  Sha256 hash;
  uint64_t got = 0;
  const uint64_t unproven_bytes = length - std::min(length, kHeldBackBytes);
  const auto take = [&](uint64_t, ByteSpan piece) -> Status {
    if (stopping_) return Error{Code::kUnavailable, "the relay is stopping"};
    hash.update(piece);
    SILT_TRY(file->write_at(got, piece));
    got += piece.size();
    entry.advance(std::min(got, unproven_bytes));
    return {};
  };
  const ObjectRef object{name.text, length, promised.sha256, 0};
  Status streamed = stream_object(store_, object, options_.ahead, take);
  if (!streamed) {
    if (streamed.error().code == Code::kCorrupt) ++metrics_.damaged_in_store;
    return streamed;
  }
  Status proven = check_sha256(object, to_hex(hash.finish()));
  if (!proven) {
    ++metrics_.damaged_in_store;
    return proven;
  }
  ++metrics_.fetched_objects;
  return cache_.keep(name.text, entry, *file);
}

Status Objects::bring_record(const ObjectName& name, Entry& entry) {
  SILT_ASSIGN(const bool adopted, adopt_record(name, entry));
  if (adopted) return {};
  SILT_ASSIGN(std::string bytes, store_.read_all(name.text, kMaxCommitBytes));
  Status proven = prove_record(name, bytes);
  if (!proven) {
    if (proven.error().code == Code::kCorrupt) ++metrics_.damaged_in_store;
    return std::move(proven).error().in("'" + name.text + "'");
  }
  ++metrics_.fetched_objects;
  if (keep_record(name, bytes, entry)) return {};
  // A full disk is no reason to withhold what is this small.
  cache_.forget(name.text, entry);
  entry.finish(std::move(bytes));
  return {};
}

Result<bool> Objects::adopt_record(const ObjectName& name, Entry& entry) {
  // Which repository this is decides what all other records prove: that is asked anew.
  if (name.kind == NameKind::kRepo) cache_.discard(name.text);
  const std::optional<File> file = cache_.leftover(name.text);
  if (!file) return false;
  const Result<std::string> bytes = read_whole(*file, kMaxCommitBytes);
  const Status proven = bytes ? prove_record(name, *bytes) : Status(bytes.error());
  if (proven) {
    SILT_TRY(cache_.adopt(name.text, entry, *file));
    return true;
  }
  if (proven.error().code != Code::kCorrupt) return proven.error();
  ++metrics_.damaged_in_cache;
  cache_.discard(name.text);
  return false;
}

Status Objects::keep_record(const ObjectName& name, const std::string& bytes, Entry& entry) {
  SILT_ASSIGN(File file, cache_.make_file(name.text, bytes.size()));
  SILT_TRY(file.write_at(0, as_bytes(bytes)));
  return cache_.keep(name.text, entry, file);
}

Status Objects::prove_record(const ObjectName& name, const std::string& bytes) {
  if (name.kind == NameKind::kRepo) {
    const Result<RepoRecord> record = parse_repo(bytes);
    return record ? Status() : Status(record.error());
  }
  SILT_ASSIGN(const std::string id, repo_id());
  if (name.kind == NameKind::kCommit) {
    const Result<Commit> commit = parse_commit(bytes, id, name.branch, name.seq);
    return commit ? Status() : Status(commit.error());
  }
  const Result<VersionId> target = parse_ref(bytes, id);
  return target ? Status() : Status(target.error());
}

Result<std::string> Objects::repo_id() {
  {
    const std::lock_guard lock(mutex_);
    if (repo_id_) return *repo_id_;
  }
  Result<std::string> bytes = read(repo_name());
  if (!bytes && bytes.error().code == Code::kNotFound) {
    return Error{Code::kUnavailable, "'" + store_.url() + "' holds no repository"};
  }
  if (!bytes) return std::move(bytes).error();
  SILT_ASSIGN(const RepoRecord record, parse_repo(*bytes));
  const std::lock_guard lock(mutex_);
  repo_id_ = record.repo_id;
  return record.repo_id;
}

bool Objects::stop(std::chrono::steady_clock::time_point deadline) {
  stopping_ = true;
  const bool looked = lookups_.stop(deadline);
  return fetches_.stop(deadline) && looked;
}

}  // namespace siltstone::relay
