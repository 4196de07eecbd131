// The hints that say where a branch's head is, written where nobody waits for them.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "siltstone/store.h"
#include "siltstone/version.h"

namespace siltstone {

// Where the store is local a hint is written at once; else by a thread of its own, one at a time,
// of each branch only the newest. Errors are ignored. Threads: safe.
class HeadHints {
 public:
  explicit HeadHints(std::shared_ptr<Store> store) : store_(std::move(store)) {}
  // Writes what is still to be written.
  ~HeadHints();
  HeadHints(const HeadHints&) = delete;
  HeadHints& operator=(const HeadHints&) = delete;

  void write(const VersionId& head);

 private:
  void work();

  std::shared_ptr<Store> store_;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::map<std::string, VersionId> waiting_;  // by branch; guarded by mutex_, as all below
  bool closed_ = false;
  std::jthread thread_;  // begun with the first hint
};

}  // namespace siltstone
