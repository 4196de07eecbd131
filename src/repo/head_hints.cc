#include "repo/head_hints.h"

#include "base/bytes.h"
#include "repo/commit.h"
#include "repo/keys.h"

namespace siltstone {
namespace {

void replace_hint(Store& store, const VersionId& head) {
  const std::string hint = format_head(head);
  (void)store.replace(head_key(head.branch), as_bytes(hint));
}

}  // namespace

HeadHints::~HeadHints() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  moved_.notify_all();
}

void HeadHints::write(const VersionId& head) {
  if (store_->traits().local) return replace_hint(*store_, head);
  const std::lock_guard lock(mutex_);
  waiting_[head.branch] = head;
  if (!thread_.joinable()) thread_ = std::jthread([this] { work(); });
  moved_.notify_all();
}

void HeadHints::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    moved_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const VersionId head = waiting_.extract(waiting_.begin()).mapped();
    lock.unlock();
    replace_hint(*store_, head);
    lock.lock();
  }
}

}  // namespace siltstone
