// A store in a directory: object "a/b" is the file a/b beneath the root.
//
// What has been created is durable and appears whole or not at all, also to other processes and
// after a power cut; see docs/format/store.md. Objects are written to a temporary file in the
// folder kTemporaryFolder of the root and linked to their names.
//
// Threads: every method may be called from many threads at once, and from many processes.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "siltstone/store.h"

namespace siltstone {

class LocalStore final : public Store {
 public:
  // Not an object name, so that no object can be there.
  static constexpr const char* kTemporaryFolder = ".tmp~";

  // The directory need not exist: the first object that is written creates it.
  static Result<std::shared_ptr<LocalStore>> open(const std::filesystem::path& root);

  explicit LocalStore(std::filesystem::path absolute_root) : root_(std::move(absolute_root)) {}

  std::string url() const override { return root_.string(); }
  StoreTraits traits() const override { return {.create_exclusive = true, .local = true}; }
  Result<uint64_t> size_bytes(std::string_view name) override;
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override;
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;

 private:
  Status create_checked(std::string_view name, const ByteSource& content);
  Result<File> open_or_make_root();
  // The folder that holds the object, made with its parents if need be, durable in them.
  Result<File> make_parent(File root, std::string_view folder);
  bool known_durable(std::string_view folder);

  const std::filesystem::path root_;
  std::mutex mutex_;
  std::set<std::string, std::less<>> durable_folders_;  // guarded by mutex_
};

}  // namespace siltstone
