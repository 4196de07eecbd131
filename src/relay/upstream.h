// The store behind a relay, read only: counts what is asked of it and remembers whether it answers.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "relay/metrics.h"
#include "siltstone/store.h"

namespace siltstone::relay {

class Upstream final : public Store {
 public:
  Upstream(std::shared_ptr<Store> store, Metrics& metrics)
      : store_(std::move(store)), metrics_(metrics) {}

  // Why the last call got no answer; empty if it did, or if there was none. Absent and damaged
  // objects are answers.
  std::optional<Error> trouble() const;

  std::string url() const override { return store_->url(); }
  StoreTraits traits() const override { return store_->traits(); }
  Result<uint64_t> size_bytes(std::string_view name) override;
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override;
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes) override;
  // kPermission: a relay writes nothing.
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;

 private:
  template <class T>
  T counted(T outcome);

  std::shared_ptr<Store> store_;
  Metrics& metrics_;
  mutable std::mutex mutex_;
  std::optional<Error> trouble_;  // guarded by mutex_
};

}  // namespace siltstone::relay
