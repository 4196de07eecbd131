// A store that is read through a relay nearby, and directly where the relay does not help.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "siltstone/store.h"

namespace siltstone {

// Reads ask the relay first. One that does not answer is left alone for a while; what it refuses or
// does not have is asked of the store. Writes and listings are the store's, and so are, from the
// first write on, the names by which versions are found: a writer must not see them late.
//
// Threads: every method may be called from many threads at once.
class RelayedStore final : public Store {
 public:
  RelayedStore(std::shared_ptr<Store> relay, std::shared_ptr<Store> store)
      : relay_(std::move(relay)), store_(std::move(store)) {}

  std::string url() const override { return store_->url(); }
  StoreTraits traits() const override;
  Result<uint64_t> size_bytes(std::string_view name) override;
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override;
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes) override;
  Result<bool> wait(std::string_view name, double seconds, const std::atomic<bool>* stop) override;
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;
  Status use_single_writer() override { return store_->use_single_writer(); }

 private:
  bool asks_relay(std::string_view name) const;
  // Whether the relay's answer stands; notes a relay that does not answer.
  bool stands(std::string_view name, const Error* error);
  template <class Read>
  auto read_through(std::string_view name, const Read& read);

  const std::shared_ptr<Store> relay_;
  const std::shared_ptr<Store> store_;
  std::atomic<bool> writes_{false};
  std::atomic<int64_t> relay_again_ns_{0};  // steady time from which the relay is asked again
};

}  // namespace siltstone
