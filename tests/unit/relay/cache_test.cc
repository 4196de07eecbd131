// The folder of a relay: its bound, what it trusts, what it leaves behind.
#include "relay/cache.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/scratch_folder.h"

namespace siltstone::relay {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class CacheTest : public ::testing::Test {
 protected:
  void open(uint64_t limit_bytes) {
    cache_.reset();
    auto opened = Cache::open(folder_.path() / "cache", limit_bytes, metrics_);
    ASSERT_TRUE(opened) << opened.error().message;
    cache_ = *std::move(opened);
  }
  // Brings an object of that many equal bytes in.
  Status put(const std::string& name, uint64_t bytes, char fill = 'x') {
    const Cache::Found found = cache_->find(name);
    EXPECT_TRUE(found.entry->claim());
    Result<File> file = cache_->make_file(name, bytes);
    if (!file) {
      cache_->drop(name, *found.entry, file.error());
      return file.error();
    }
    const std::string content(bytes, fill);
    Status written = file->write_at(0, as_bytes(content));
    if (!written) return written;
    return cache_->keep(name, *found.entry, *file);
  }
  bool is_whole(const std::string& name) { return cache_->find(name).file != nullptr; }
  fs::path only_file() {
    fs::path path;
    for (const auto& entry : fs::directory_iterator(folder_.path() / "cache/objects")) {
      EXPECT_TRUE(path.empty());
      path = entry.path();
    }
    return path;
  }

  test::ScratchFolder folder_;
  Metrics metrics_;
  std::unique_ptr<Cache> cache_;
};

TEST_F(CacheTest, WhatWasAskedForLongestAgoGoesFirst) {
  open(4 * kMiB);
  for (const char* name : {"a", "b", "c", "d"}) ASSERT_TRUE(put(name, kMiB));
  EXPECT_TRUE(is_whole("a"));
  ASSERT_TRUE(put("e", kMiB));
  EXPECT_EQ(metrics_.evictions, 1U);
  EXPECT_TRUE(is_whole("a"));
  EXPECT_FALSE(is_whole("b"));
  EXPECT_TRUE(is_whole("c"));
  EXPECT_LE(cache_->use().bytes, 4 * kMiB);
}

TEST_F(CacheTest, WhatIsServedOrFetchedStays) {
  open(3 * kMiB);
  ASSERT_TRUE(put("a", kMiB));
  const Cache::Found served = cache_->find("a");
  const Cache::Found fetched = cache_->find("b");
  ASSERT_TRUE(fetched.entry->claim());
  ASSERT_TRUE(cache_->make_file("b", kMiB));
  ASSERT_TRUE(put("c", kMiB));
  ASSERT_TRUE(put("d", kMiB));
  EXPECT_TRUE(is_whole("a"));
  EXPECT_FALSE(is_whole("c"));
  const Cache::Found also = cache_->find("d");
  EXPECT_EQ(put("e", kMiB).error().code, Code::kUnavailable);
  EXPECT_EQ(put("larger than all", 4 * kMiB).error().code, Code::kUnavailable);
  EXPECT_EQ(cache_->use().bytes, 3 * kMiB);
}

TEST_F(CacheTest, AFailureGivesItsRoomBack) {
  open(2 * kMiB);
  const Cache::Found found = cache_->find("a");
  ASSERT_TRUE(found.entry->claim());
  ASSERT_TRUE(cache_->make_file("a", 2 * kMiB));
  cache_->drop("a", *found.entry, Error{Code::kCorrupt, "damaged"});
  EXPECT_EQ(found.entry->view().error.code, Code::kCorrupt);
  EXPECT_EQ(cache_->use().bytes, 0U);
  EXPECT_TRUE(fs::is_empty(folder_.path() / "cache/arriving"));
  EXPECT_TRUE(put("a", 2 * kMiB));
}

TEST_F(CacheTest, AnotherRelayIsRefused) {
  open(kMiB);
  const auto second = Cache::open(folder_.path() / "cache", kMiB, metrics_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kConflict);
}

TEST_F(CacheTest, AFileThatSomebodyTouchedIsNotWhole) {
  for (const int what : {0, 1, 2}) {
    open(8 * kMiB);
    const std::string name = "object" + std::to_string(what);
    ASSERT_TRUE(put(name, kMiB));
    ASSERT_TRUE(is_whole(name));
    const fs::path path = only_file();
    if (what == 0) fs::resize_file(path, kMiB - 1);
    if (what == 1) std::fstream(path, std::ios::in | std::ios::out).put('y');
    if (what == 2) fs::remove(path);
    const Cache::Found found = cache_->find(name);
    EXPECT_EQ(found.file, nullptr);
    EXPECT_TRUE(found.made);
    ASSERT_TRUE(found.entry->claim());
    EXPECT_EQ(cache_->leftover(name).has_value(), what != 2);
    cache_->discard(name);
    EXPECT_EQ(cache_->use().bytes, 0U);
    cache_->drop(name, *found.entry, Error{Code::kCorrupt, "gone"});
  }
}

TEST_F(CacheTest, ALaterProcessTrustsNothing) {
  open(4 * kMiB);
  ASSERT_TRUE(put("a", kMiB));
  std::ofstream(folder_.path() / "cache/arriving/half").put('x');
  std::ofstream(folder_.path() / "cache/objects/foreign").put('x');
  open(4 * kMiB);
  EXPECT_TRUE(fs::is_empty(folder_.path() / "cache/arriving"));
  EXPECT_EQ(cache_->use().objects, 1U);
  EXPECT_EQ(cache_->use().bytes, kMiB);
  const Cache::Found found = cache_->find("a");
  EXPECT_EQ(found.file, nullptr);
  ASSERT_TRUE(found.entry->claim());
  const std::optional<File> left = cache_->leftover("a");
  ASSERT_TRUE(left);
  ASSERT_TRUE(cache_->adopt("a", *found.entry, *left));
  EXPECT_TRUE(is_whole("a"));
  // One that could not be proven for another's fault is kept for the next attempt.
  open(4 * kMiB);
  const Cache::Found again = cache_->find("a");
  cache_->drop("a", *again.entry, Error{Code::kUnavailable, "no commit"});
  EXPECT_TRUE(cache_->leftover("a"));
}

TEST_F(CacheTest, ASmallerLimitIsKeptFromTheStart) {
  open(4 * kMiB);
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(put(name, kMiB));
  open(2 * kMiB);
  EXPECT_EQ(cache_->use().objects, 2U);
  EXPECT_LE(cache_->use().bytes, 2 * kMiB);
}

}  // namespace
}  // namespace siltstone::relay
