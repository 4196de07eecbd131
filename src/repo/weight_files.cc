#include "repo/weight_files.h"

#include <algorithm>
#include <atomic>

#include "base/checksum.h"
#include "base/parallel.h"
#include "base/try.h"
#include "repo/history.h"
#include "repo/keys.h"
#include "repo/objects.h"

namespace siltstone {

Result<WeightFiles> WeightFiles::create(const Schema& schema, const std::vector<size_t>& files,
                                        const std::filesystem::path& folder) {
  WeightFiles out;
  out.places_ = file_places(schema);
  out.files_.resize(schema.files.size());
  for (const size_t number : files) {
    const WeightFile& file = schema.files[number];
    const std::filesystem::path path = folder / file.path;
    SILT_TRY(make_directories(path.parent_path()));
    SILT_ASSIGN(DirectFile created, DirectFile::create(path, file.size_bytes));
    std::byte length[8];
    store_le<uint64_t>(length, file.header.size());
    SILT_TRY(created.write_at(0, length));
    SILT_TRY(created.write_at(sizeof length, as_bytes(file.header)));
    out.bytes_written_ += file.size_bytes;
    out.files_[number] = std::move(created);
  }
  return out;
}

Status WeightFiles::write(size_t tensor, uint64_t offset_bytes, ByteSpan words) {
  const FilePlace& place = places_[tensor];
  DirectFile& file = files_[place.file];
  if (!file.is_open()) return {};
  return file.write_at(place.offset_bytes + offset_bytes, words);
}

Status WeightFiles::finish(unsigned threads) {
  return parallel_for(files_.size(), threads, [this](uint64_t i, unsigned) -> Status {
    if (!files_[i].is_open()) return {};
    SILT_TRY(files_[i].sync());
    return files_[i].close();
  });
}

Result<std::string> fetch_companion(Store& store, const CompanionRef& companion) {
  const std::string key = companion_key(companion.sha256);
  Result<std::string> content = store.read_all(key, companion.size_bytes);
  if (!content) return promised(std::move(content).error()).in("file '" + companion.path + "'");
  if (sha256_hex(as_bytes(*content)) != companion.sha256) {
    return Error{Code::kCorrupt,
                 "object '" + key + "' (file '" + companion.path + "') does not match its name"};
  }
  return content;
}

Result<uint64_t> write_companions(Store& store, const std::vector<const CompanionRef*>& companions,
                                  const std::filesystem::path& folder) {
  constexpr uint64_t kMemoryBytes = uint64_t{128} << 20;
  uint64_t largest = 0;
  for (const CompanionRef* companion : companions)
    largest = std::max(largest, companion->size_bytes);
  std::atomic<uint64_t> bytes{0};
  SILT_TRY(
      parallel_for(companions.size(),
                   threads_within(std::max(1U, store.traits().transfers), kMemoryBytes, largest),
                   [&](uint64_t i, unsigned) -> Status {
                     SILT_ASSIGN(const std::string content, fetch_companion(store, *companions[i]));
                     bytes += content.size();
                     return write_new_file(folder / companions[i]->path, as_bytes(content));
                   }));
  return bytes.load();
}

Status write_new_file(const std::filesystem::path& path, ByteSpan content) {
  SILT_TRY(make_directories(path.parent_path()));
  SILT_ASSIGN(File file, File::create(path));
  SILT_TRY(file.write_at(0, content));
  SILT_TRY(file.sync());
  return file.close();
}

Status sync_folders(const std::filesystem::path& folder) {
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator at(folder, error), end; at != end && !error;
       at.increment(error)) {
    if (at->is_directory()) SILT_TRY(sync_directory(at->path()));
  }
  if (error) return os_error(error.value(), "list", folder);
  return sync_directory(folder);
}

}  // namespace siltstone
