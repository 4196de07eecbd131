#include "repo/uploads.h"

#include <algorithm>
#include <new>

#include "base/try.h"

namespace siltstone {

Uploads::Uploads(const Store& store, uint64_t memory_bytes)
    : threads_(std::max(1U, store.traits().transfers)), memory_bytes_(memory_bytes) {}

Uploads::~Uploads() {
  cancel();
  const std::lock_guard lock(mutex_);
  closed_ = true;
  moved_.notify_all();
}

Status Uploads::add(uint64_t bytes, std::function<Status()> write) {
  if (threads_ == 1) return write();
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [&] {
    return !status_ || held_bytes_ == 0 ||
           (bytes <= memory_bytes_ && held_bytes_ <= memory_bytes_ - bytes);
  });
  if (!status_) return status_;
  held_bytes_ += bytes;
  waiting_.push_back({bytes, std::move(write)});
  if (pool_.size() < threads_ && pool_.size() < busy_ + waiting_.size())
    pool_.emplace_back([this] { work(); });
  moved_.notify_all();
  return {};
}

void Uploads::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    moved_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Write write = std::move(waiting_.front());
    waiting_.pop_front();
    ++busy_;
    lock.unlock();
    Status status;
    try {
      status = write.run();
    } catch (const std::bad_alloc&) {
      status = Error{Code::kIo, "there is no memory left for an upload"};
    }
    write.run = nullptr;
    lock.lock();
    --busy_;
    held_bytes_ -= write.bytes;
    if (!status && status_) {
      status_ = std::move(status);
      for (const Write& dropped : waiting_) held_bytes_ -= dropped.bytes;
      waiting_.clear();
    }
    moved_.notify_all();
  }
}

Status Uploads::finish() {
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [this] { return waiting_.empty() && busy_ == 0; });
  return status_;
}

void Uploads::cancel() {
  std::unique_lock lock(mutex_);
  for (const Write& dropped : waiting_) held_bytes_ -= dropped.bytes;
  waiting_.clear();
  moved_.wait(lock, [this] { return busy_ == 0; });
  status_ = {};
}

}  // namespace siltstone
