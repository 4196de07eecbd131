// A store for tests that behaves like one behind a network: every request takes a while, many may
// be under way, and all are counted.
//
// Threads: as any store; hooks are set while no request is under way.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "siltstone/store.h"

namespace siltstone::test {

class RemoteStore : public Store {
 public:
  struct Request {
    std::string operation;  // "size", "read", "read_all", "wait", "create", "replace", "list", ...
    std::string name;
    uint64_t bytes = 0;
  };

  RemoteStore(std::shared_ptr<Store> inner, unsigned transfers,
              std::chrono::microseconds latency = std::chrono::milliseconds(2))
      : inner_(std::move(inner)), transfers_(transfers), latency_(latency) {}

  std::string url() const override { return "remote://" + inner_->url(); }
  StoreTraits traits() const override {
    return {.create_exclusive = true, .local = false, .waits = waits, .transfers = transfers_};
  }

  Result<uint64_t> size_bytes(std::string_view name) override {
    const Visit visit(*this, "size", name, 0);
    return inner_->size_bytes(name);
  }
  Status read(std::string_view name, uint64_t offset, std::span<std::byte> out) override {
    const Visit visit(*this, "read", name, out.size());
    const Status status = inner_->read(name, offset, out);
    return status && on_read ? on_read(name, offset, out) : status;
  }
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes) override {
    const Visit visit(*this, "read_all", name, 0);
    return inner_->read_all(name, limit_bytes);
  }
  Result<bool> wait(std::string_view name, double, const std::atomic<bool>*) override {
    const Visit visit(*this, "wait", name, 0);
    if (on_wait) on_wait(name);
    return bool(inner_->size_bytes(name));
  }
  Status create(std::string_view name, const ByteSource& content) override {
    const Visit visit(*this, "create", name, content.size_bytes());
    if (on_create) {
      const Status allowed = on_create(name);
      if (!allowed) return allowed;
    }
    return inner_->create(name, content);
  }
  Status replace(std::string_view name, std::span<const std::byte> content) override {
    const Visit visit(*this, "replace", name, content.size());
    return inner_->replace(name, content);
  }
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override {
    const Visit visit(*this, "list", prefix, 0);
    return inner_->list(prefix);
  }
  Status remove(std::string_view name) override {
    const Visit visit(*this, "remove", name, 0);
    return inner_->remove(name);
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    requests_.clear();
    most_ = 0;
    most_bytes_ = 0;
  }
  // In the order in which they began; of one operation, or all.
  std::vector<Request> requests(std::string_view operation = {}) const {
    const std::lock_guard lock(mutex_);
    std::vector<Request> out;
    std::ranges::copy_if(requests_, std::back_inserter(out), [operation](const Request& request) {
      return operation.empty() || request.operation == operation;
    });
    return out;
  }
  size_t count(std::string_view operation = {}) const { return requests(operation).size(); }
  // "read_all log/main/00000003.json" and so on, for comparison.
  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (const Request& request : requests()) out.push_back(request.operation + " " + request.name);
    return out;
  }
  unsigned most_in_flight() const {
    const std::lock_guard lock(mutex_);
    return most_;
  }
  // Of the bytes that requests under way at one time read or write.
  uint64_t most_bytes_in_flight() const {
    const std::lock_guard lock(mutex_);
    return most_bytes_;
  }

  bool waits = false;
  // Called within each read, which it may change or fail.
  std::function<Status(std::string_view name, uint64_t offset, std::span<std::byte> out)> on_read;
  // Called within each create; an error is what it returns.
  std::function<Status(std::string_view name)> on_create;
  // Called within each wait.
  std::function<void(std::string_view name)> on_wait;

 private:
  class Visit {
   public:
    Visit(RemoteStore& store, std::string_view operation, std::string_view name, uint64_t bytes)
        : store_(store), bytes_(bytes) {
      {
        const std::lock_guard lock(store_.mutex_);
        store_.requests_.push_back({std::string(operation), std::string(name), bytes});
        store_.most_ = std::max(store_.most_, ++store_.now_);
        store_.most_bytes_ = std::max(store_.most_bytes_, store_.now_bytes_ += bytes);
      }
      std::this_thread::sleep_for(store_.latency_);
    }
    ~Visit() {
      const std::lock_guard lock(store_.mutex_);
      --store_.now_;
      store_.now_bytes_ -= bytes_;
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    RemoteStore& store_;
    const uint64_t bytes_;
  };

  const std::shared_ptr<Store> inner_;
  const unsigned transfers_;
  const std::chrono::microseconds latency_;
  mutable std::mutex mutex_;
  std::vector<Request> requests_;  // guarded by mutex_, as all below
  unsigned now_ = 0;
  unsigned most_ = 0;
  uint64_t now_bytes_ = 0;
  uint64_t most_bytes_ = 0;
};

}  // namespace siltstone::test
