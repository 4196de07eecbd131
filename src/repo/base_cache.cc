#include "repo/base_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/files.h"
#include "base/json.h"
#include "base/try.h"
#include "siltstone/repository.h"

namespace siltstone {
namespace {

constexpr const char* kRecordName = "base.json";
constexpr const char* kTemporaryPrefix = ".base.json.";  // of replace_file
constexpr const char* kFilesPrefix = "files-";
constexpr const char* kLockName = "lock";
constexpr uint64_t kMaxRecordBytes = uint64_t{512} << 20;

struct KeptFile {
  std::string path;
  std::filesystem::path source;  // absolute; empty once copied
  FileStat stat;                 // of our name for it, when it was kept
};

Status copy_whole_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  SILT_ASSIGN(const File source, File::open_read(from));
  SILT_ASSIGN(const FileStat stat, source.stat());
  SILT_ASSIGN(File target, File::create(to));
  uint64_t left = stat.size_bytes;
  while (left > 0) {
    const ssize_t moved = ::copy_file_range(source.fd(), nullptr, target.fd(), nullptr, left, 0);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return os_error(moved < 0 ? errno : EIO, "copy to", to);
    left -= static_cast<uint64_t>(moved);
  }
  return target.close();
}

// Where the file's bytes really lie: folders may hold links into a download cache.
std::filesystem::path source_of(const Checkpoint& checkpoint, const WeightFile& file) {
  std::error_code ignored;
  return std::filesystem::weakly_canonical(checkpoint.root() / file.path, ignored);
}

// What is removed is removed by this name.
bool is_files_folder(const std::string& name) {
  return name.starts_with(kFilesPrefix) && name.find('/') == name.npos;
}

}  // namespace

struct BaseCache::Record {
  VersionId id;
  std::string root;
  std::vector<Sum128> sums;
  std::string files_folder;  // below folder_
  std::vector<KeptFile> files;
  bool copied = false;
  std::string rewritten;  // a file that the trainer was seen to rewrite in place
};

std::optional<File> BaseCache::lock() {
  if (!make_directories(folder_)) return std::nullopt;
  const std::filesystem::path path = folder_ / kLockName;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return std::nullopt;
  File file(fd, path);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return std::nullopt;
  return file;
}

std::optional<BaseCache::Record> BaseCache::read_record() {
  const Result<std::string> text = read_file(folder_ / kRecordName, kMaxRecordBytes);
  if (!text) return std::nullopt;
  const Result<Json> parsed = parse_json(*text, {kMaxRecordBytes, 8});
  if (!parsed || !parsed->is_object()) return std::nullopt;
  try {
    const Json& json = *parsed;
    Record record;
    record.id = {json.at("branch"), json.at("seq"), json.at("hash")};
    record.root = json.at("root");
    record.copied = json.at("copied");
    record.rewritten = json.at("rewritten");
    record.files_folder = json.at("files_folder");
    if (!is_files_folder(record.files_folder)) return std::nullopt;
    for (const Json& text_sum : json.at("sums")) {
      Sum128 sum;
      if (!sum_from_hex(text_sum.get<std::string>(), &sum)) return std::nullopt;
      record.sums.push_back(sum);
    }
    for (const Json& item : json.at("files")) {
      KeptFile file;
      file.path = item.at("path");
      file.source = item.at("source").get<std::string>();
      file.stat.device = item.at("device");
      file.stat.inode = item.at("inode");
      file.stat.size_bytes = item.at("size");
      file.stat.mtime_ns = item.at("mtime_ns");
      record.files.push_back(std::move(file));
    }
    return record;
  } catch (const Json::exception&) {
    return std::nullopt;  // another program's, or cut off: as good as none
  }
}

Status BaseCache::write_record(const Record& record) {
  Json json = {{"branch", record.id.branch},
               {"seq", record.id.seq},
               {"hash", record.id.commit_hash},
               {"root", record.root},
               {"copied", record.copied},
               {"rewritten", record.rewritten},
               {"files_folder", record.files_folder},
               {"sums", Json::array()},
               {"files", Json::array()}};
  for (const Sum128& sum : record.sums) json["sums"].push_back(to_hex(sum));
  for (const KeptFile& file : record.files) {
    json["files"].push_back({{"path", file.path},
                             {"source", file.source.string()},
                             {"device", file.stat.device},
                             {"inode", file.stat.inode},
                             {"size", file.stat.size_bytes},
                             {"mtime_ns", file.stat.mtime_ns}});
  }
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return replace_file(folder_ / kRecordName, as_bytes(text));
}

// Removes what killed publishers left. REQUIRES: the lock is held.
void BaseCache::sweep(const std::string& named) {
  std::error_code ignored;
  std::vector<std::filesystem::path> left;
  for (std::filesystem::directory_iterator item(folder_, ignored), end; !ignored && item != end;
       item.increment(ignored)) {
    const std::string name = item->path().filename().string();
    const bool files = is_files_folder(name) && name != named;
    if (files || name.starts_with(kTemporaryPrefix)) left.push_back(item->path());
  }
  for (const std::filesystem::path& path : left) std::filesystem::remove_all(path, ignored);
}

// The lock file stays: two publishers that locked two files would both hold the lock.
void BaseCache::drop() {
  std::error_code ignored;
  std::filesystem::remove(folder_ / kRecordName, ignored);
  sweep("");
}

void BaseCache::forget() {
  if (const std::optional<File> held = lock()) drop();
}

std::optional<BaseCache::Kept> BaseCache::load() {
  const std::optional<File> held = lock();
  if (!held) return std::nullopt;
  std::optional<Record> record = read_record();
  sweep(record ? record->files_folder : "");
  if (!record || record->files.empty()) return std::nullopt;
  const std::filesystem::path files = folder_ / record->files_folder;
  for (const KeptFile& file : record->files) {
    const Result<FileStat> now = stat_file(files / file.path);
    const bool same = now && now->inode == file.stat.inode &&
                      now->size_bytes == file.stat.size_bytes &&
                      now->mtime_ns == file.stat.mtime_ns;
    if (same) continue;
    // The name is ours alone, so whoever changed the file did it through the trainer's name.
    if (!record->copied) record->rewritten = file.source;
    record->files.clear();
    if (!write_record(*record)) {
      drop();
    } else {
      sweep("");
    }
    return std::nullopt;
  }
  Result<std::unique_ptr<Checkpoint>> checkpoint = open_checkpoint(files);
  if (!checkpoint || (*checkpoint)->tensors().size() != record->sums.size()) return std::nullopt;
  Kept kept;
  kept.id = record->id;
  kept.root = record->root;
  kept.sums = std::move(record->sums);
  kept.checkpoint = *std::move(checkpoint);
  kept.copied = record->copied;
  return kept;
}

Status BaseCache::fill_folder(const Checkpoint& checkpoint, Record* record) {
  const std::filesystem::path target = folder_ / record->files_folder;
  for (const WeightFile& file : checkpoint.files()) {
    const std::filesystem::path from = source_of(checkpoint, file);
    const std::filesystem::path to = target / file.path;
    SILT_TRY(make_directories(to.parent_path()));
    if (record->copied) {
      SILT_TRY(copy_whole_file(from, to));
    } else if (::link(from.c_str(), to.c_str()) != 0) {
      return os_error(errno, "link", to);
    }
    SILT_ASSIGN(const FileStat stat, stat_file(to));
    record->files.push_back({file.path, from, stat});
  }
  return {};
}

// All of the files, or none of them.
bool BaseCache::keep_files(const Checkpoint& checkpoint, Record* record) {
  if (fill_folder(checkpoint, record)) return true;
  std::error_code ignored;
  std::filesystem::remove_all(folder_ / record->files_folder, ignored);
  record->files.clear();
  return false;
}

void BaseCache::keep(const Checkpoint& checkpoint, const VersionId& id, const std::string& root,
                     const std::vector<Sum128>& sums, bool store_is_local, uint64_t chain_bytes) {
  if (checkpoint.root().empty()) return;
  const std::optional<File> held = lock();
  if (!held) return;
  const std::optional<Record> last = read_record();
  const std::string old = last ? last->files_folder : "";
  sweep(old);
  uint64_t total = 0;
  for (const WeightFile& file : checkpoint.files()) total += file.size_bytes;

  Record record;
  record.id = id;
  record.root = root;
  record.sums = sums;
  record.files_folder = unique_name(kFilesPrefix);
  if (last) record.rewritten = last->rewritten;
  record.copied = std::ranges::any_of(checkpoint.files(), [&](const WeightFile& file) {
    return source_of(checkpoint, file) == record.rewritten;
  });
  const bool copy_serves = last && last->copied && !last->files.empty() && chain_bytes <= total / 2;
  if (record.copied && copy_serves) return;
  if (!(record.copied && store_is_local) && !keep_files(checkpoint, &record) && !store_is_local &&
      !record.copied) {
    // Links fail across file systems and for files of other users.
    if (copy_serves) return;
    record.copied = true;
    keep_files(checkpoint, &record);
  }
  if (!write_record(record)) return drop();
  sweep(record.files_folder);
}

std::filesystem::path default_cache() {
  if (const char* own = std::getenv("SILTSTONE_CACHE"); own != nullptr && *own != 0) return own;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != 0) {
    return std::filesystem::path(xdg) / "siltstone";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0) {
    return std::filesystem::path(home) / ".cache" / "siltstone";
  }
  return {};
}

}  // namespace siltstone
