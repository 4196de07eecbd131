// A store behind the S3 protocol: Amazon's, and those of Ceph, MinIO, R2 and the like; the gateway
// of Hugging Face buckets.
//
// Objects are created with one conditional PUT each (docs/format/store.md, "An S3 bucket as a
// store").
//
// Threads: every method may be called from many threads at once.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "siltstone/store.h"
#include "store/http_objects.h"
#include "store/s3_location.h"

namespace siltstone {

class S3Store final : public Store {
 public:
  // s3://BUCKET/PREFIX or hf://buckets/NAMESPACE/NAME/PREFIX. Makes no request.
  static Result<std::shared_ptr<S3Store>> open(std::string_view url, const StoreOptions& options);

  S3Store(std::unique_ptr<HttpDialect> dialect, S3Location location, const StoreOptions& options)
      : location_(std::move(location)), objects_(std::move(dialect), options) {}

  std::string url() const override { return location_.url; }
  StoreTraits traits() const override;
  Result<uint64_t> size_bytes(std::string_view name) override { return objects_.size_bytes(name); }
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override {
    return objects_.read(name, offset_bytes, out);
  }
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes) override {
    return objects_.read_all(name, limit_bytes);
  }
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;
  Status use_single_writer() override;

 private:
  Result<HttpReply> put(std::string_view name, const ByteSource& content, bool only_new,
                        bool* unknown);
  // Whether the object is there with this content: whose create it was whose reply was lost.
  Result<bool> holds(std::string_view name, const ByteSource& content);

  const S3Location location_;
  HttpObjects objects_;
  std::atomic<bool> single_writer_{false};
};

}  // namespace siltstone
