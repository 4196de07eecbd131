#include "siltstone/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "base/bytes.h"
#include "tensor/safetensors.h"
#include "unit/base/temp_folder.h"
#include "unit/tensor/make_file.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

class OneFile : public testing::Test {
 protected:
  void SetUp() override {
    path_ = folder_.write("w.safetensors", content_);
    auto opened = open_checkpoint(path_);
    ASSERT_TRUE(opened) << opened.error().message;
    checkpoint_ = *std::move(opened);
  }
  Status read(size_t index, uint64_t offset_bytes, uint64_t length_bytes) {
    bytes_.assign(length_bytes, '?');
    return checkpoint_->read(index, offset_bytes, std::as_writable_bytes(std::span(bytes_)));
  }

  TempFolder folder_;
  std::string content_ = make_file({{"b", "01234567"}, {"a", "xyz"}, {"empty", ""}});
  fs::path path_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::string bytes_;
};

TEST_F(OneFile, DescribesTheFile) {
  EXPECT_EQ(checkpoint_->root(), folder_.path());
  ASSERT_EQ(checkpoint_->files().size(), 1U);
  const WeightFile& file = checkpoint_->files()[0];
  EXPECT_EQ(file.path, "w.safetensors");
  EXPECT_EQ(file.size_bytes, content_.size());
  EXPECT_EQ(kLengthFieldBytes + file.header.size() + 11, file.size_bytes);
  ASSERT_EQ(checkpoint_->tensors().size(), 3U);
  EXPECT_EQ(checkpoint_->tensors()[0].name, "a");
  EXPECT_EQ(checkpoint_->tensors()[2].name, "empty");
  EXPECT_TRUE(checkpoint_->companions().empty());
  EXPECT_TRUE(checkpoint_->skipped().empty());
  EXPECT_TRUE(checkpoint_->resident(0).empty());
}

TEST_F(OneFile, ReadsRanges) {
  ASSERT_TRUE(read(1, 2, 3));
  EXPECT_EQ(bytes_, "234");
  ASSERT_TRUE(read(0, 0, 3));
  EXPECT_EQ(bytes_, "xyz");
  EXPECT_TRUE(read(0, 3, 0));
  EXPECT_TRUE(read(2, 0, 0));
}

TEST_F(OneFile, RefusesRangesOutsideTheTensor) {
  for (const auto& [offset, length] :
       {std::pair<uint64_t, uint64_t>{1, 3}, {4, 0}, {UINT64_MAX, 2}, {0, 4}}) {
    const Status status = read(0, offset, length);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kInvalidArgument);
  }
  EXPECT_EQ(read(0, 2, 2).error().message, "cannot read 2 bytes at 2 of tensor 'a', which has 3");
}

TEST_F(OneFile, AFileThatBecameShorterIsAnError) {
  fs::resize_file(path_, content_.size() - 1);
  const Status cut = read(0, 0, 3);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Code::kCorrupt);
  // Its own bytes are still there, but the file is not what was opened.
  const Status whole = read(1, 0, 8);
  ASSERT_FALSE(whole);
  EXPECT_EQ(whole.error().message, "'" + path_.string() + "' has " +
                                       std::to_string(content_.size() - 1) + " bytes, it had " +
                                       std::to_string(content_.size()) +
                                       " when it was opened: it is being rewritten");
}

TEST_F(OneFile, AFileThatBecameLongerIsAnError) {
  fs::resize_file(path_, content_.size() + 1);
  const Status status = read(0, 0, 3);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorrupt);
}

TEST_F(OneFile, AReplacedFileIsStillTheOneThatWasOpened) {
  folder_.write("new", "something else");
  fs::rename(folder_.path() / "new", path_);
  ASSERT_TRUE(read(0, 0, 3));
  EXPECT_EQ(bytes_, "xyz");
  EXPECT_TRUE(checkpoint_->check_unchanged());
}

TEST_F(OneFile, WritingInPlaceIsNoticed) {
  EXPECT_TRUE(checkpoint_->check_unchanged());
  fs::last_write_time(path_, fs::last_write_time(path_) + std::chrono::seconds(1));
  ASSERT_TRUE(read(0, 0, 3));
  const Status status = checkpoint_->check_unchanged();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kConflict);
}

TEST_F(OneFile, IsReadFromManyThreads) {
  std::vector<std::jthread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, &right] {
      for (int i = 0; i < 100; ++i) {
        std::string bytes(8, '?');
        if (checkpoint_->read(1, 0, std::as_writable_bytes(std::span(bytes))) &&
            bytes == "01234567") {
          ++right;
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(right, 400);
}

TEST(OpenCheckpoint, SaysWhatItCannotOpen) {
  const TempFolder folder;
  const auto message = [&](const std::string& name, Code code) {
    const auto opened = open_checkpoint(folder.path() / name);
    if (opened) return std::string("accepted");
    EXPECT_EQ(opened.error().code, code);
    return opened.error().message;
  };
  const std::string at = "'" + folder.path().string() + "/";
  EXPECT_EQ(message("gone", Code::kNotFound), "there is no file or folder " + at + "gone'");
  folder.write("pytorch_model.bin", "");
  EXPECT_EQ(message("pytorch_model.bin", Code::kUnsupported),
            at + "pytorch_model.bin' is neither a .safetensors file nor a model folder");
  ASSERT_EQ(mkfifo((folder.path() / "pipe.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(message("pipe.safetensors", Code::kUnsupported),
            at + "pipe.safetensors' is neither a .safetensors file nor a model folder");
  folder.write("a\n.safetensors", make_file({}));
  EXPECT_EQ(message("a\n.safetensors", Code::kUnsupported),
            "the file name 'a\\x0a.safetensors' has control characters or is not valid UTF-8");
}

TEST(OpenCheckpoint, PositionsBeyondTwoToThe32) {
  // A sparse file: one tensor of 5 GiB whose last byte is written.
  constexpr uint64_t kSize = uint64_t{5} << 30;
  const TempFolder folder;
  const std::vector<TensorInfo> infos = {
      {"large", DType::kU8, {static_cast<int64_t>(kSize)}, kSize}, {"last", DType::kU8, {1}, 1}};
  const std::string prefix = make_safetensors_prefix(infos, {}, 8);
  const fs::path path = folder.write("s.safetensors", prefix);
  {
    std::ofstream file(path, std::ios::binary | std::ios::in);
    file.seekp(static_cast<std::streamoff>(prefix.size() + kSize - 1));
    file << "yz";
    ASSERT_TRUE(file.good());
  }
  const auto checkpoint = open_checkpoint(path);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  std::string bytes(2, '?');
  const auto out = std::as_writable_bytes(std::span(bytes));
  ASSERT_TRUE((*checkpoint)->read(0, kSize - 1, out.first(1)));
  ASSERT_TRUE((*checkpoint)->read(1, 0, out.last(1)));
  EXPECT_EQ(bytes, "yz");
}

}  // namespace
}  // namespace siltstone
