#include "repo/base_cache.h"

#include <fcntl.h>
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

std::optional<BaseCache::Kept> BaseCache::load() {
  std::optional<Record> record = read_record();
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
    std::error_code ignored;
    std::filesystem::remove_all(files, ignored);
    record->files.clear();
    if (!write_record(*record)) forget();
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

Status BaseCache::keep_files(const Checkpoint& checkpoint, Record* record) {
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

void BaseCache::keep(const Checkpoint& checkpoint, const VersionId& id, const std::string& root,
                     const std::vector<Sum128>& sums, bool store_is_local, uint64_t chain_bytes) {
  if (checkpoint.root().empty()) return;
  const std::optional<Record> last = read_record();
  uint64_t total = 0;
  for (const WeightFile& file : checkpoint.files()) total += file.size_bytes;

  Record record;
  record.id = id;
  record.root = root;
  record.sums = sums;
  if (last) record.rewritten = last->rewritten;
  record.copied = std::ranges::any_of(checkpoint.files(), [&](const WeightFile& file) {
    return source_of(checkpoint, file) == record.rewritten;
  });
  const bool has_copy = last && last->copied && !last->files.empty();
  if (record.copied && has_copy && chain_bytes <= total / 2) return;

  std::error_code ignored;
  const std::filesystem::path old =
      last && !last->files_folder.empty() ? folder_ / last->files_folder : "";
  record.files_folder = unique_name("files-");
  Status kept;
  if (!(record.copied && store_is_local)) {
    // links fail across file systems and for files of other users: then a copy or the bucket serves
    kept = keep_files(checkpoint, &record);
    if (!kept && !store_is_local && !record.copied) {
      std::filesystem::remove_all(folder_ / record.files_folder, ignored);
      record.files.clear();
      record.copied = true;
      kept = keep_files(checkpoint, &record);
    }
    if (!kept) {
      std::filesystem::remove_all(folder_ / record.files_folder, ignored);
      record.files.clear();
    }
  }
  if (!make_directories(folder_) || !write_record(record)) return forget();
  if (!old.empty()) std::filesystem::remove_all(old, ignored);
}

void BaseCache::forget() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
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
