#include "store/memory.h"

#include <algorithm>
#include <mutex>

#include "base/try.h"
#include "store/names.h"
#include "store/sources.h"

namespace siltstone {
std::shared_ptr<MemoryStore> MemoryStore::shared(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<MemoryStore>, std::less<>> stores;
  const std::lock_guard lock(mutex);
  auto found = stores.find(name);
  if (found == stores.end()) {
    auto store = std::make_shared<MemoryStore>("mem://" + std::string(name));
    found = stores.emplace(std::string(name), std::move(store)).first;
  }
  return found->second;
}

Result<MemoryStore::Content> MemoryStore::find(std::string_view name) const {
  SILT_TRY(check_object_name(name));
  const std::shared_lock lock(mutex_);
  const auto found = objects_.find(name);
  if (found == objects_.end()) return no_such_object(name, url_);
  return found->second;
}

Result<uint64_t> MemoryStore::size_bytes(std::string_view name) {
  SILT_ASSIGN(const Content content, find(name));
  return uint64_t{content->size()};
}

Status MemoryStore::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  SILT_ASSIGN(const Content content, find(name));
  SILT_TRY(check_range(name, content->size(), offset_bytes, out.size()));
  std::ranges::copy(std::span(*content).subspan(offset_bytes, out.size()), out.begin());
  return {};
}

Status MemoryStore::create(std::string_view name, const ByteSource& content) {
  const Result<Content> present = find(name);
  if (present) return object_exists(name, url_);
  if (present.error().code != Code::kNotFound) return present.error();
  auto bytes = std::make_shared<std::vector<std::byte>>(content.size_bytes());
  for (uint64_t done = 0; done < bytes->size();) {
    const uint64_t piece_bytes = std::min(kMaxPieceBytes, bytes->size() - done);
    SILT_TRY(content.read(done, std::span(*bytes).subspan(done, piece_bytes)));
    done += piece_bytes;
  }
  const std::unique_lock lock(mutex_);
  if (!objects_.try_emplace(std::string(name), std::move(bytes)).second) {
    return object_exists(name, url_);
  }
  return {};
}

Status MemoryStore::replace(std::string_view name, std::span<const std::byte> content) {
  SILT_TRY(check_object_name(name));
  auto bytes = std::make_shared<const std::vector<std::byte>>(content.begin(), content.end());
  const std::unique_lock lock(mutex_);
  objects_.insert_or_assign(std::string(name), std::move(bytes));
  return {};
}

Result<std::vector<ObjectInfo>> MemoryStore::list(std::string_view prefix) {
  SILT_TRY(check_object_prefix(prefix));
  std::vector<ObjectInfo> out;
  const std::shared_lock lock(mutex_);
  for (auto at = objects_.lower_bound(prefix);
       at != objects_.end() && at->first.starts_with(prefix); ++at) {
    out.push_back({at->first, at->second->size()});
  }
  return out;
}

Status MemoryStore::remove(std::string_view name) {
  SILT_TRY(check_object_name(name));
  const std::unique_lock lock(mutex_);
  const auto found = objects_.find(name);
  if (found != objects_.end()) objects_.erase(found);
  return {};
}

}  // namespace siltstone
