// The publisher's cache on disk: what it keeps of trainers that write new files and of trainers
// that rewrite theirs, what killed publishers leave in it, and two publishers that share it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <fstream>

#include "repo/base_cache.h"
#include "repo/bucket.h"
#include "store/memory.h"
#include "support/tiny_model.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;
using test::TinyModel;

// A bucket that is far away, although it lies in memory.
class RemoteStore final : public Store {
 public:
  std::string url() const override { return inner_.url(); }
  StoreTraits traits() const override { return {.create_exclusive = true, .local = false}; }
  Result<uint64_t> size_bytes(std::string_view name) override { return inner_.size_bytes(name); }
  Status read(std::string_view name, uint64_t offset_bytes, MutByteSpan out) override {
    return inner_.read(name, offset_bytes, out);
  }
  Status create(std::string_view name, const ByteSource& content) override {
    return inner_.create(name, content);
  }
  Status replace(std::string_view name, ByteSpan content) override {
    return inner_.replace(name, content);
  }
  Result<std::vector<ObjectInfo>> list(std::string_view prefix) override {
    return inner_.list(prefix);
  }
  Status remove(std::string_view name) override { return inner_.remove(name); }

 private:
  MemoryStore inner_{"mem://remote"};
};

// Writes into the file that is there, as a trainer does that keeps one checkpoint. Times move on by
// themselves only as fast as the file system's clock ticks.
void write_in_place(const fs::path& file, const TinyModel& model, bool keep_time = false) {
  std::vector<TensorInfo> infos;
  for (const TinyModel::Tensor& t : model.tensors) {
    infos.push_back({t.name, t.dtype, t.shape, t.bytes.size()});
  }
  const bool existed = fs::exists(file);
  const fs::file_time_type time = existed ? fs::last_write_time(file) : fs::file_time_type();
  {
    std::ofstream out(file, std::ios::binary);
    out << make_safetensors_prefix(infos, {}, 8);
    for (const TinyModel::Tensor& t : model.tensors) out << as_text(t.bytes);
  }
  if (existed) fs::last_write_time(file, keep_time ? time : time + std::chrono::seconds(1));
}

class BaseCacheTest : public ::testing::Test {
 protected:
  BaseCacheTest() : cache_(folder()) { fs::create_directory(trainer()); }

  fs::path folder() const { return scratch_.path() / "cache" / "main"; }
  fs::path trainer() const { return scratch_.path() / "trainer"; }
  fs::path weights() const { return trainer() / "model.safetensors"; }

  void keep(uint64_t seq, bool store_is_local, uint64_t chain_bytes) {
    const std::unique_ptr<Checkpoint> checkpoint = *open_checkpoint(trainer());
    cache_.keep(*checkpoint, {"main", seq, ""}, "root", std::vector<Sum128>(4), store_is_local,
                chain_bytes);
  }
  std::vector<std::string> kept_folders() const {
    std::vector<std::string> names;
    for (const auto& item : fs::directory_iterator(folder())) {
      const std::string name = item.path().filename();
      if (name.starts_with("files-")) names.push_back(name);
    }
    return names;
  }
  // What is kept of the version that `seq` says; -1 if nothing.
  int64_t kept_seq() {
    const std::optional<BaseCache::Kept> kept = cache_.load();
    return kept ? static_cast<int64_t>(kept->id.seq) : -1;
  }
  void rewrite(uint64_t seed, bool keep_time = false) {
    model_.step(seed);
    write_in_place(weights(), model_, keep_time);
  }
  // A cache that holds a copy of version 1.
  void make_copy() {
    write_in_place(weights(), model_);
    keep(0, false, UINT64_MAX);
    rewrite(1);
    EXPECT_EQ(kept_seq(), -1);
    keep(1, false, UINT64_MAX);
    const std::optional<BaseCache::Kept> kept = cache_.load();
    ASSERT_TRUE(kept);
    EXPECT_TRUE(kept->copied);
  }

  ScratchFolder scratch_;
  TinyModel model_;
  BaseCache cache_;
};

TEST_F(BaseCacheTest, WhatKilledPublishersLeftIsRemoved) {
  const auto leave = [&] {
    fs::create_directories(folder() / "files-0123456789abcdef");
    write_in_place(folder() / "files-0123456789abcdef" / "model.safetensors", model_);
    std::ofstream(folder() / ".base.json.0123456789abcdef") << "{";
  };
  const auto left = [&] { return fs::exists(folder() / "files-0123456789abcdef"); };
  write_in_place(weights(), model_);
  leave();
  EXPECT_EQ(kept_seq(), -1);
  EXPECT_FALSE(left());
  leave();
  keep(0, true, UINT64_MAX);
  EXPECT_FALSE(left());
  EXPECT_EQ(kept_folders().size(), 1);
  leave();
  EXPECT_EQ(kept_seq(), 0);
  EXPECT_FALSE(left());
  EXPECT_FALSE(fs::exists(folder() / ".base.json.0123456789abcdef"));
  leave();
  cache_.forget();
  EXPECT_TRUE(kept_folders().empty());
  EXPECT_EQ(kept_seq(), -1);
}

TEST_F(BaseCacheTest, ARecordCannotNameFoldersOfOthers) {
  write_in_place(weights(), model_);
  keep(0, true, UINT64_MAX);
  const std::string name = kept_folders().front();
  std::string text = *read_file(folder() / "base.json", 1 << 20);
  text.replace(text.find(name), name.size(), "../../trainer");
  std::ofstream(folder() / "base.json") << text;
  EXPECT_EQ(kept_seq(), -1);
  keep(1, true, UINT64_MAX);
  EXPECT_EQ(kept_seq(), 1);
  EXPECT_TRUE(fs::exists(weights()));
}

TEST_F(BaseCacheTest, AnotherPublisherThatHasTheFolderIsLeftAlone) {
  write_in_place(weights(), model_);
  keep(0, true, UINT64_MAX);
  const std::optional<BaseCache::Kept> kept = cache_.load();
  ASSERT_TRUE(kept);
  {
    const File lock(::open((folder() / "lock").c_str(), O_RDWR | O_CLOEXEC), folder() / "lock");
    ASSERT_EQ(::flock(lock.fd(), LOCK_EX | LOCK_NB), 0);
    fs::create_directory(folder() / "files-being-made");
    EXPECT_EQ(kept_seq(), -1);
    keep(1, true, UINT64_MAX);
    cache_.forget();
    EXPECT_EQ(kept_folders().size(), 2);
  }
  EXPECT_EQ(kept_seq(), 0);
  EXPECT_EQ(kept_folders().size(), 1);

  cache_.forget();
  std::vector<std::byte> bytes(model_.tensors[3].bytes.size());
  ASSERT_TRUE(kept->checkpoint->read(3, 0, bytes)) << "its files are open";
  EXPECT_EQ(bytes, model_.tensors[3].bytes);
}

TEST_F(BaseCacheTest, RewrittenFilesAreCopiedWhereTheBucketIsFar) {
  make_copy();
  const TinyModel copied = model_;
  const std::string first = kept_folders().front();
  rewrite(2);
  EXPECT_TRUE(copied.is_in(folder() / first)) << "a copy does not follow the trainer";
  EXPECT_EQ(kept_seq(), 1);
  const uint64_t half = fs::file_size(weights()) / 2;
  keep(2, false, half);
  EXPECT_EQ(kept_seq(), 1) << "deltas since the copy are small: it serves on";
  EXPECT_EQ(kept_folders(), std::vector<std::string>{first});
  keep(3, false, half + 1);
  EXPECT_EQ(kept_seq(), 3);
  ASSERT_EQ(kept_folders().size(), 1);
  EXPECT_TRUE(model_.is_in(folder() / kept_folders().front()));
}

TEST_F(BaseCacheTest, RewrittenFilesAreNotCopiedWhereTheBucketIsNear) {
  write_in_place(weights(), model_);
  keep(0, true, UINT64_MAX);
  rewrite(1);
  EXPECT_EQ(kept_seq(), -1);
  keep(1, true, UINT64_MAX);
  EXPECT_EQ(kept_seq(), -1);
  EXPECT_TRUE(kept_folders().empty());
}

TEST_F(BaseCacheTest, ADamagedCopyIsForgottenAndMadeAgain) {
  make_copy();
  fs::resize_file(folder() / kept_folders().front() / "model.safetensors", 100);
  EXPECT_EQ(kept_seq(), -1);
  EXPECT_TRUE(kept_folders().empty());
  keep(2, false, 0);
  EXPECT_EQ(kept_seq(), 2);
  EXPECT_TRUE(cache_.load()->copied) << "that the trainer rewrites its files is not forgotten";
}

// The same through whole publishes: what the base was, and what the cache may not spoil.
TEST_F(BaseCacheTest, PublishesToAFarBucket) {
  const auto store = std::make_shared<RemoteStore>();
  const std::unique_ptr<Repository> repository = *Repository::init(store);
  PublishOptions options;
  options.cache = scratch_.path() / "published";
  const fs::path own = options.cache / repository->info().repo_id / "main";
  const auto publish = [&](uint64_t seed) {
    rewrite(seed);
    Result<PublishReport> report = repository->publish(**open_checkpoint(trainer()), options);
    EXPECT_TRUE(report) << report.error().message;
    return report ? report->base : "";
  };
  publish(1);
  EXPECT_EQ(publish(2), "the bucket's anchor of main@0");
  EXPECT_EQ(publish(3), "a copy of main@1");

  // One word of the copy goes bad without a trace in its size and time.
  fs::path copy;
  for (const auto& item : fs::directory_iterator(own)) {
    if (item.is_directory()) copy = item.path() / "model.safetensors";
  }
  TinyModel bad = model_;
  bad.step(99);
  write_in_place(copy, bad, /*keep_time=*/true);
  EXPECT_TRUE(publish(4).starts_with("the bucket's anchor of "));
  EXPECT_TRUE(publish(5).starts_with("the bucket's anchor of ")) << "links were tried again";
  EXPECT_TRUE(publish(6).starts_with("a copy of main@4"));

  // Tensors that come lead nowhere from the copy: it is made anew.
  model_.tensors.push_back({"x", DType::kU8, {1}, {std::byte{1}}});
  EXPECT_EQ(publish(7), "nothing: the set of tensors changed");
  EXPECT_TRUE(publish(8).starts_with("a copy of main@6"));
  ASSERT_TRUE(repository->checkout(*repository->resolve("main"), scratch_.path() / "out", {}));
  EXPECT_TRUE(model_.is_in(scratch_.path() / "out"));
}

}  // namespace
}  // namespace siltstone
