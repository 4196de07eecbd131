// A store in this process's memory, for tests and examples.
//
// Threads: every method may be called from many threads at once; content is copied outside the
// lock. Nothing is durable.
#pragma once

#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include "siltstone/store.h"

namespace siltstone {

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::string url) : url_(std::move(url)) {}

  // The store of that name in this process; it lives until the process ends.
  static std::shared_ptr<MemoryStore> shared(std::string_view name);

  std::string url() const override { return url_; }
  StoreTraits traits() const override { return {.create_exclusive = true, .local = true}; }
  Result<uint64_t> size_bytes(std::string_view name) override;
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override;
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;

 private:
  using Content = std::shared_ptr<const std::vector<std::byte>>;

  Result<Content> find(std::string_view name) const;

  const std::string url_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, Content, std::less<>> objects_;  // guarded by mutex_
};

}  // namespace siltstone
