// A bucket in memory with a few published versions, behind a store that counts, fails and waits.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/checksum.h"
#include "repo/keys.h"
#include "repo/objects.h"
#include "store/faulty.h"
#include "store/memory.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

namespace siltstone::relay {

class PublishedBucket {
 public:
  PublishedBucket() : repository_(*Repository::init(memory_)) {
    publish();
    publish();
    faulty_->on_operation([this](std::string_view operation, std::string_view name) {
      std::unique_lock lock(mutex_);
      ++counts_[std::string(operation) + " " + std::string(name)];
      changed_.notify_all();
      changed_.wait(lock, [&] { return closed_gate_ != name || reads_let_in_ > 0; });
      if (closed_gate_ == name) --reads_let_in_;
    });
  }

  void publish() {
    model_.step(++steps_);
    PublishOptions options;
    options.threads = 1;
    ASSERT_TRUE(repository_->publish(*model_.checkpoint({{"config.json", "{}"}}), options));
  }

  // A companion file of that many bytes; returns its name.
  std::string add_file(size_t bytes) {
    std::string content(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>(i * 2654435761U >> 13);
    const std::string name = companion_key(sha256_hex(as_bytes(content)));
    EXPECT_TRUE(memory_->create(name, PiecesSource({as_bytes(content)})));
    return name;
  }

  // From now on calls for `name` wait, after `calls` more of them.
  void close_gate(const std::string& name, int calls) {
    const std::lock_guard lock(mutex_);
    closed_gate_ = name;
    reads_let_in_ = calls;
  }
  void open_gate() {
    const std::lock_guard lock(mutex_);
    closed_gate_.clear();
    changed_.notify_all();
  }
  int count(const std::string& operation, const std::string& name) {
    const std::lock_guard lock(mutex_);
    return counts_[operation + " " + name];
  }

  std::vector<std::string> names(const std::string& prefix = "") {
    std::vector<std::string> names;
    for (const ObjectInfo& object : *memory_->list(prefix)) names.push_back(object.name);
    return names;
  }
  std::string content(const std::string& name) { return *memory_->read_all(name, UINT64_MAX); }
  void overwrite(const std::string& name, const std::string& content) {
    ASSERT_TRUE(memory_->replace(name, as_bytes(content)));
  }
  // Flips a bit in the middle.
  void damage(const std::string& name) {
    std::string bytes = content(name);
    bytes[bytes.size() / 2] ^= 1;
    overwrite(name, bytes);
  }

  FaultyStore& faults() { return *faulty_; }
  std::shared_ptr<Store> store() { return faulty_; }
  Repository& repository() { return *repository_; }

 private:
  std::shared_ptr<MemoryStore> memory_ = std::make_shared<MemoryStore>("mem://relay");
  std::shared_ptr<FaultyStore> faulty_ = std::make_shared<FaultyStore>(memory_);
  std::unique_ptr<Repository> repository_;
  test::TinyModel model_;
  uint64_t steps_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> counts_;
  std::string closed_gate_;
  int reads_let_in_ = 0;
};

}  // namespace siltstone::relay
