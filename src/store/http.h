// A bucket behind any HTTP server that serves files: read only. A CDN, a relay, `python3 -m
// http.server`.
//
// Threads: every method may be called from many threads at once.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "siltstone/store.h"
#include "store/http_objects.h"

namespace siltstone {

class HttpStore final : public Store {
 public:
  // http://HOST/PATH or https://HOST/PATH. Makes no request.
  static Result<std::shared_ptr<HttpStore>> open(std::string_view url, const StoreOptions& options);

  HttpStore(std::unique_ptr<HttpDialect> dialect, const StoreOptions& options)
      : objects_(std::move(dialect), options) {}

  std::string url() const override { return objects_.dialect().url(); }
  StoreTraits traits() const override;
  Result<uint64_t> size_bytes(std::string_view name) override { return objects_.size_bytes(name); }
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override {
    return objects_.read(name, offset_bytes, out);
  }
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes) override {
    return objects_.read_all(name, limit_bytes);
  }
  // Asks with `Prefer: wait` (RFC 7240). A server that does not honour it is not asked so again.
  Result<bool> wait(std::string_view name, double seconds, const std::atomic<bool>* stop) override;
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;

 private:
  Error read_only(std::string_view what) const;

  HttpObjects objects_;
  std::atomic<bool> waits_{true};
};

}  // namespace siltstone
