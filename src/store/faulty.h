// A store for tests: forwards to another one and fails at chosen operations.
//
// Operations are counted across all methods; one armed fault strikes one operation. A fault is
// decided by the operation's number alone, so that a run can be repeated.
//
// Threads: operations may run on many threads; fail_at, heal and on_operation only while none does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "siltstone/store.h"

namespace siltstone {

enum class Fault : uint8_t {
  kFailBefore,  // kUnavailable, nothing done
  kFailAfter,   // done, then kUnavailable: the reply was lost
  kNoSpace,     // kIo, nothing done
  kShortRead,   // reads: the first half, then kCorrupt as for a truncated object; others as
                // kFailBefore
  kWrongBytes,  // reads: one bit flipped, no error; others as kFailBefore
  // Reads and sizes of head/ objects: the content that was there before the last replace through
  // this store, kNotFound if there was none or none was seen. The name stays as stale as that until
  // it is replaced or removed, or a fault is armed or healed: size and read of one stale cache
  // agree. Other operations are not affected.
  kStaleHint,
};

class FaultyStore final : public Store {
 public:
  explicit FaultyStore(std::shared_ptr<Store> inner);

  // From now on, operation number `index` (0 = the next one) suffers `fault`; counting restarts.
  void fail_at(uint64_t index, Fault fault);
  void heal();
  uint64_t operations() const { return operations_.load(); }
  // Whether the armed operation was reached, even one that its fault does not affect.
  bool struck() const { return struck_.load(); }
  // Called before each operation with its name ("create", ...) and object; for crash and race
  // tests.
  void on_operation(std::function<void(std::string_view, std::string_view)> hook);

  std::string url() const override;
  StoreTraits traits() const override;
  Result<uint64_t> size_bytes(std::string_view name) override;
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) override;
  Status create(std::string_view name, const ByteSource& content) override;
  Status replace(std::string_view name, std::span<const std::byte> content) override;
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override;
  Status remove(std::string_view name) override;

 private:
  using Content = std::optional<std::vector<std::byte>>;

  // Counts the operation that begins now; its fault, if it is the armed one.
  std::optional<Fault> begin(std::string_view operation, std::string_view name);
  // Runs `inner` as the fault says, for operations that have no rule of their own.
  template <class T, class Inner>
  T with_fault(std::optional<Fault> fault, std::string_view what, std::string_view name,
               const Inner& inner);
  // Marks a head/ name as stale if the fault says so; then what a stale cache holds of it.
  bool is_stale(std::optional<Fault> fault, std::string_view name, Content* content);
  void remember(std::string_view name);

  std::shared_ptr<Store> inner_;
  std::function<void(std::string_view, std::string_view)> hook_;
  std::atomic<uint64_t> operations_{0};
  std::atomic<uint64_t> armed_index_{UINT64_MAX};
  std::atomic<Fault> armed_fault_{Fault::kFailBefore};
  std::atomic<bool> struck_{false};

  std::mutex mutex_;
  std::map<std::string, Content, std::less<>> previous_;  // of head/ objects; guarded by mutex_
  std::set<std::string, std::less<>> stale_;              // guarded by mutex_
};

}  // namespace siltstone
