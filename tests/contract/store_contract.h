// What every store must do: the suite of store_contract_test.cc runs on each StoreCase.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <system_error>
#include <vector>

#include "base/files.h"
#include "siltstone/store.h"
#include "store/sources.h"
#include "support/scratch_folder.h"

namespace siltstone {

// An empty bucket, removed at the end. Each call of `open` gives another handle on it.
struct TestBucket {
  std::function<std::shared_ptr<Store>()> open;
  std::function<void()> remove = [] {};
};

using test::ScratchFolder;

struct StoreCase {
  std::string name;
  std::function<TestBucket()> make;

  friend void PrintTo(const StoreCase& store, std::ostream* out) { *out << store.name; }
};

// `size_bytes` bytes that follow from `seed` and their position; nothing is held in memory. From
// byte `fail_from_bytes` on, reads give an error.
class PatternSource final : public ByteSource {
 public:
  PatternSource(uint64_t seed, uint64_t size_bytes, uint64_t fail_from_bytes = UINT64_MAX)
      : seed_(seed), size_bytes_(size_bytes), fail_from_bytes_(fail_from_bytes) {}

  static std::byte at(uint64_t seed, uint64_t position) {
    return static_cast<std::byte>((seed * 131 + position * 7 + (position >> 12)) & 0xff);
  }

  uint64_t size_bytes() const override { return size_bytes_; }
  Status read(uint64_t offset_bytes, std::span<std::byte> out) const override {
    largest_read_bytes_ = std::max<uint64_t>(largest_read_bytes_, out.size());
    if (offset_bytes + out.size() > fail_from_bytes_) {
      return Error{Code::kDevice, "the source broke"};
    }
    for (size_t i = 0; i < out.size(); ++i) out[i] = at(seed_, offset_bytes + i);
    return {};
  }
  uint64_t largest_read_bytes() const { return largest_read_bytes_; }

 private:
  const uint64_t seed_;
  const uint64_t size_bytes_;
  const uint64_t fail_from_bytes_;
  mutable std::atomic<uint64_t> largest_read_bytes_{0};
};

class StoreContract : public testing::TestWithParam<StoreCase> {
 protected:
  StoreContract() : bucket_(GetParam().make()), store_(bucket_.open()) {}
  ~StoreContract() override { bucket_.remove(); }

  Status create(std::string_view name, std::string_view text) {
    return store_->create(name, SpanSource(text));
  }
  Status replace(std::string_view name, std::string_view text) {
    return store_->replace(name, as_bytes(text));
  }
  // The whole object, or "<code name>".
  std::string content(std::string_view name) { return content_of(*store_, name); }
  static std::string content_of(Store& store, std::string_view name);
  // "name:size name:size ..."
  std::string listing(std::string_view prefix);

  TestBucket bucket_;
  std::shared_ptr<Store> store_;
};

// "ok" or the name of the error's code.
template <class T>
std::string outcome(const Result<T>& result) {
  return result ? "ok" : std::string(code_name(result.error().code));
}

}  // namespace siltstone
