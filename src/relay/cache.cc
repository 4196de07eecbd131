#include "relay/cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/checksum.h"
#include "base/try.h"

namespace siltstone::relay {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlockBytes = 4096;
constexpr size_t kKeyDigits = 64;
// Bounds the memory of the index, about 100 MiB, where objects are tiny.
constexpr size_t kMaxObjects = size_t{1} << 18;
constexpr size_t kMaxOpen = 256;

std::string key_of(const std::string& name) {
  return sha256_hex(as_bytes(name));
}

uint64_t charge_of(uint64_t length_bytes) {
  return align_up(std::max<uint64_t>(length_bytes, 1), kBlockBytes);
}

bool is_key(const std::string& text) {
  return text.size() == kKeyDigits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

Result<File> lock_folder(const fs::path& folder) {
  const fs::path path = folder / "lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return os_error(errno, "open", path);
  File file(fd, path);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return Error{Code::kConflict, "another relay uses the cache '" + folder.string() +
                                      "'; give this one a folder of its own"};
  }
  return file;
}

void unlink_all(const std::vector<fs::path>& paths) {
  for (const fs::path& path : paths) ::unlink(path.c_str());
}

// Reserves the blocks, so that a full disk shows before the first byte is served.
int reserve(int fd, uint64_t length_bytes) {
  if (length_bytes == 0 || ::fallocate(fd, 0, 0, static_cast<off_t>(length_bytes)) == 0) return 0;
  return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
}

}  // namespace

Result<std::unique_ptr<Cache>> Cache::open(const fs::path& folder, uint64_t limit_bytes,
                                           Metrics& metrics) {
  SILT_TRY(make_directories(folder / "objects"));
  SILT_TRY(make_directories(folder / "arriving"));
  SILT_ASSIGN(File lock, lock_folder(folder));
  std::unique_ptr<Cache> cache(new Cache(folder, limit_bytes, metrics, std::move(lock)));
  cache->clear_arriving();
  SILT_TRY(cache->scan());
  return cache;
}

// Takes in what an earlier process left, oldest first, as far as the limit allows.
Status Cache::scan() {
  struct Left {
    std::string key;
    FileStat stat;
  };
  std::vector<Left> left;
  std::error_code error;
  for (fs::directory_iterator at(folder_ / "objects", error), end; !error && at != end;
       at.increment(error)) {
    const std::string key = at->path().filename().string();
    const Result<FileStat> stat = stat_file(at->path());
    if (is_key(key) && stat) left.push_back({key, *stat});
  }
  if (error) return os_error(error.value(), "read the cache", folder_ / "objects");
  std::sort(left.begin(), left.end(),
            [](const Left& a, const Left& b) { return a.stat.mtime_ns < b.stat.mtime_ns; });
  std::vector<fs::path> doomed;
  const std::lock_guard lock(mutex_);
  for (const Left& file : left) {
    Slot& slot = slots_[file.key];
    slot.charge_bytes = charge_of(file.stat.size_bytes);
    slot.on_disk = true;
    used_bytes_ += slot.charge_bytes;
    touch(file.key, slot);
  }
  make_room(0, &doomed);
  unlink_all(doomed);
  return {};
}

fs::path Cache::object_path(const std::string& key) const {
  return folder_ / "objects" / key;
}

fs::path Cache::arriving_path(const std::string& key) const {
  return folder_ / "arriving" / key;
}

Cache::Found Cache::find(const std::string& name) {
  const std::string key = key_of(name);
  Found found;
  FileStat proven;
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[key];
    if (slot.on_disk) touch(key, slot);
    if (!slot.entry) {
      slot.entry = std::make_shared<Entry>();
      return {slot.entry, {}, true};
    }
    found.entry = slot.entry;
    if (slot.entry->state() != Entry::State::kWhole) return found;
    found.file = open_whole(key, slot);
    proven = slot.proven;
  }
  if (found.file) {
    const Result<FileStat> stat = found.file->stat();
    if (stat && *stat == proven) return found;
  }
  return distrust(key, found.entry);
}

// Somebody changed or removed the file: it is a leftover again.
Cache::Found Cache::distrust(const std::string& key, const std::shared_ptr<Entry>& whole) {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[key];
  if (slot.entry && slot.entry != whole) return {slot.entry, {}, false};
  slot.file.reset();
  slot.entry = std::make_shared<Entry>();
  return {slot.entry, {}, true};
}

// Files stay open while they are asked for; all are closed when there are many.
std::shared_ptr<const File> Cache::open_whole(const std::string& key, Slot& slot) {
  if (slot.file) return slot.file;
  if (open_.size() >= kMaxOpen) {
    for (const std::string& other : open_) {
      if (const auto found = slots_.find(other); found != slots_.end()) found->second.file.reset();
    }
    open_.clear();
  }
  Result<File> file = File::open_read(object_path(key));
  if (!file) return {};
  slot.file = std::make_shared<const File>(*std::move(file));
  open_.push_back(key);
  return slot.file;
}

void Cache::forget(const std::string& name, const Entry& entry) {
  const std::string key = key_of(name);
  ::unlink(arriving_path(key).c_str());
  const std::lock_guard lock(mutex_);
  const auto slot = slots_.find(key);
  if (slot != slots_.end() && slot->second.entry.get() == &entry) remove_slot(slot);
}

std::optional<File> Cache::leftover(const std::string& name) {
  const std::string key = key_of(name);
  {
    const std::lock_guard lock(mutex_);
    const auto slot = slots_.find(key);
    if (slot == slots_.end() || !slot->second.on_disk) return std::nullopt;
  }
  Result<File> file = File::open_read(object_path(key));
  if (file) return *std::move(file);
  discard(name);
  return std::nullopt;
}

Status Cache::adopt(const std::string& name, Entry& entry, const File& file) {
  return settle(key_of(name), entry, file);
}

void Cache::discard(const std::string& name) {
  const std::string key = key_of(name);
  const std::lock_guard lock(mutex_);
  const auto slot = slots_.find(key);
  if (slot == slots_.end() || !slot->second.on_disk) return;
  ::unlink(object_path(key).c_str());
  used_bytes_ -= std::exchange(slot->second.charge_bytes, 0);
  recent_.erase(*slot->second.recent);
  slot->second.recent.reset();
  slot->second.on_disk = false;
  slot->second.file.reset();
}

Result<File> Cache::make_file(const std::string& name, uint64_t length_bytes) {
  const std::string key = key_of(name);
  const uint64_t charge = charge_of(length_bytes);
  std::vector<fs::path> doomed;
  bool room;
  {
    const std::lock_guard lock(mutex_);
    room = make_room(charge, &doomed);
    if (room) {
      slots_[key].charge_bytes = charge;
      used_bytes_ += charge;
    }
  }
  unlink_all(doomed);
  if (room) return allocate(key, length_bytes);
  return Error{Code::kUnavailable, "the cache of " + format_bytes(limit_bytes_) +
                                       " has no room for '" + name + "' of " +
                                       format_bytes(length_bytes) +
                                       ": raise --cache-size, or read it from the store"};
}

// A disk that is fuller than --cache-size assumed: what is not in use goes until the object fits.
Result<File> Cache::allocate(const std::string& key, uint64_t length_bytes) {
  const fs::path path = arriving_path(key);
  ::unlink(path.c_str());
  SILT_ASSIGN(File file, File::create(path));
  while (true) {
    const int error = reserve(file.fd(), length_bytes);
    if (error == 0) return file;
    std::vector<fs::path> doomed;
    bool freed = false;
    if (error == ENOSPC || error == EDQUOT) {
      const std::lock_guard lock(mutex_);
      freed = evict_one(&doomed);
    }
    unlink_all(doomed);
    if (freed) continue;
    ::unlink(path.c_str());
    Error why = os_error(error, "reserve " + format_bytes(length_bytes) + " for", path);
    why.code = Code::kUnavailable;
    return why;
  }
}

Status Cache::keep(const std::string& name, Entry& entry, const File& file) {
  const std::string key = key_of(name);
  SILT_TRY(rename_file(arriving_path(key), object_path(key)));
  return settle(key, entry, file);
}

Status Cache::settle(const std::string& key, Entry& entry, const File& file) {
  SILT_ASSIGN(const FileStat stat, file.stat());
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[key];
    slot.proven = stat;
    slot.on_disk = true;
    touch(key, slot);
  }
  entry.finish(stat.size_bytes);
  return {};
}

void Cache::drop(const std::string& name, Entry& entry, Error error) {
  const std::string key = key_of(name);
  ::unlink(arriving_path(key).c_str());
  {
    const std::lock_guard lock(mutex_);
    const auto slot = slots_.find(key);
    if (slot != slots_.end() && slot->second.entry.get() == &entry) {
      // A leftover that was not found wanting stays one.
      if (slot->second.on_disk) slot->second.entry.reset();
      if (!slot->second.on_disk) remove_slot(slot);
    }
  }
  entry.fail(std::move(error));
}

CacheUse Cache::use() const {
  const std::lock_guard lock(mutex_);
  return {used_bytes_, recent_.size(), limit_bytes_};
}

void Cache::clear_arriving() {
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder_ / "arriving", ignored)) {
    ::unlink(file.path().c_str());
  }
}

void Cache::touch(const std::string& key, Slot& slot) {
  if (slot.recent) {
    recent_.splice(recent_.end(), recent_, *slot.recent);
  } else {
    slot.recent = recent_.insert(recent_.end(), key);
  }
}

void Cache::remove_slot(Slots::iterator slot) {
  if (slot->second.on_disk) ::unlink(object_path(slot->first).c_str());
  if (slot->second.recent) recent_.erase(*slot->second.recent);
  used_bytes_ -= slot->second.charge_bytes;
  slots_.erase(slot);
}

bool Cache::make_room(uint64_t charge_bytes, std::vector<fs::path>* doomed) {
  if (charge_bytes > limit_bytes_) return false;
  while (used_bytes_ > limit_bytes_ - charge_bytes || slots_.size() > kMaxObjects) {
    if (!evict_one(doomed)) return false;
  }
  return true;
}

// Entries are handed out under the mutex alone, so one that only its slot holds stays so.
// Renamed here and unlinked by the caller: freeing the blocks of a large file takes long.
bool Cache::evict_one(std::vector<fs::path>* doomed) {
  for (const std::string& key : recent_) {
    const auto slot = slots_.find(key);
    if (slot->second.entry.use_count() > 1) continue;
    const fs::path away = folder_ / "arriving" / unique_name("evicted-");
    if (rename_file(object_path(key), away)) doomed->push_back(away);
    ++metrics_.evictions;
    remove_slot(slot);
    return true;
  }
  return false;
}

}  // namespace siltstone::relay
