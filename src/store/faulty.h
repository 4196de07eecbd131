// A store for tests: forwards to another one and fails at chosen operations.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "siltstone/store.h"

namespace siltstone {

enum class Fault : uint8_t {
  kFailBefore,  // kUnavailable, nothing done
  kFailAfter,   // done, then kUnavailable: the reply was lost
  kNoSpace,     // kIo, nothing done
  kShortRead,   // reads: kCorrupt as for a truncated object; others as kFailBefore
  kWrongBytes,  // reads: one bit flipped, no error; others as kFailBefore
  kStaleHint,   // reads of head/ objects: kNotFound or older content; others not affected
};

class FaultyStore final : public Store {
 public:
  explicit FaultyStore(std::shared_ptr<Store> inner);

  // From now on, operation number `index` (0 = the next one) suffers `fault`; counting restarts.
  void fail_at(uint64_t index, Fault fault);
  void heal();
  uint64_t operations() const { return operations_.load(); }
  // Whether the armed fault has struck.
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
  // The fault for the operation that begins now, if it is the armed one.
  bool strikes(std::string_view operation, std::string_view name, Fault* fault);

  std::shared_ptr<Store> inner_;
  std::function<void(std::string_view, std::string_view)> hook_;
  std::atomic<uint64_t> operations_{0};
  std::atomic<uint64_t> armed_index_{UINT64_MAX};
  std::atomic<Fault> armed_fault_{Fault::kFailBefore};
  std::atomic<bool> struck_{false};
};

}  // namespace siltstone
