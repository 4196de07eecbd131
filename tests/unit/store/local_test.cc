#include "store/local.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "contract/store_contract.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

class LocalStoreTest : public testing::Test {
 protected:
  LocalStoreTest() : root_(scratch_.path() / "bucket"), store_(*LocalStore::open(root_)) {}

  Status create(std::string_view name, std::string_view text) {
    return store_->create(name, SpanSource(text));
  }
  static std::string file_text(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write_text(const fs::path& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  std::string names(std::string_view prefix = "") {
    const auto objects = store_->list(prefix);
    if (!objects) return "<" + outcome(objects) + ">";
    std::string out;
    for (const ObjectInfo& object : *objects) out += object.name + " ";
    return out;
  }

  ScratchFolder scratch_;
  const fs::path root_;
  std::shared_ptr<LocalStore> store_;
};

TEST_F(LocalStoreTest, KeepsEachObjectInTheFileOfItsName) {
  ASSERT_EQ(outcome(create("log/main/0.json", "zero")), "ok");
  EXPECT_EQ(file_text(root_ / "log/main/0.json"), "zero");
  EXPECT_EQ(fs::hard_link_count(root_ / "log/main/0.json"), 1U);
  EXPECT_EQ(store_->url(), root_.string());
}

TEST_F(LocalStoreTest, DoesNotMakeTheDirectoryBeforeTheFirstObject) {
  std::array<std::byte, 1> byte;
  EXPECT_EQ(outcome(store_->size_bytes("a")), "not found");
  EXPECT_EQ(outcome(store_->read("a", 0, byte)), "not found");
  EXPECT_EQ(outcome(store_->remove("a")), "ok");
  EXPECT_EQ(names(), "");
  EXPECT_FALSE(fs::exists(root_));
  const auto deep = *LocalStore::open(root_ / "x" / "y" / "");
  EXPECT_EQ(outcome(deep->create("a", SpanSource("1"))), "ok");
  EXPECT_EQ(file_text(root_ / "x/y/a"), "1");
}

TEST_F(LocalStoreTest, RefusesAFileAsBucket) {
  write_text(root_, "a file");
  const auto opened = LocalStore::open(root_);
  ASSERT_EQ(outcome(opened), "invalid argument");
  EXPECT_NE(opened.error().message.find("is a file"), std::string::npos);
  EXPECT_EQ(outcome(create("a", "1")), "invalid argument");
  EXPECT_EQ(file_text(root_), "a file");
}

TEST_F(LocalStoreTest, StaysWhereItWasOpenedWhenTheProcessMoves) {
  const fs::path before = fs::current_path();
  fs::current_path(scratch_.path());
  const auto relative = LocalStore::open("bucket");
  fs::current_path(before);
  ASSERT_EQ(outcome(relative), "ok");
  EXPECT_EQ(outcome((*relative)->create("a", SpanSource("1"))), "ok");
  EXPECT_EQ(file_text(root_ / "a"), "1");
}

TEST_F(LocalStoreTest, FollowsALinkToTheBucketItself) {
  fs::create_directory(root_);
  fs::create_directory_symlink(root_, scratch_.path() / "link");
  const auto linked = *LocalStore::open(scratch_.path() / "link");
  EXPECT_EQ(outcome(linked->create("a", SpanSource("1"))), "ok");
  EXPECT_EQ(file_text(root_ / "a"), "1");
}

TEST_F(LocalStoreTest, RefusesLinksInTheBucket) {
  ASSERT_EQ(outcome(create("real/a", "1")), "ok");
  const fs::path outside = scratch_.path() / "outside";
  fs::create_directory(outside);
  write_text(outside / "secret", "secret");
  fs::create_symlink(outside / "secret", root_ / "leaf");
  fs::create_symlink(outside / "nothing", root_ / "dangling");
  fs::create_directory_symlink(outside, root_ / "folder");
  fs::create_directory_symlink(root_ / "real", root_ / "inner");
  std::array<std::byte, 1> byte;
  for (const std::string name : {"leaf", "dangling", "folder/secret", "folder/new", "inner/a"}) {
    EXPECT_EQ(outcome(store_->size_bytes(name)), "corrupt") << name;
    EXPECT_EQ(outcome(store_->read(name, 0, byte)), "corrupt") << name;
    EXPECT_EQ(outcome(store_->remove(name)), "corrupt") << name;
    const Status created = create(name, "2");
    ASSERT_EQ(outcome(created), "corrupt") << name;
    EXPECT_NE(created.error().message.find("is a symbolic link"), std::string::npos);
  }
  EXPECT_EQ(outcome(store_->list("folder/")), "corrupt");
  EXPECT_EQ(outcome(store_->replace("folder/new", {})), "corrupt");
  EXPECT_EQ(names(), "real/a ");
  EXPECT_EQ(file_text(outside / "secret"), "secret");
  EXPECT_EQ(std::distance(fs::directory_iterator(outside), {}), 1);
  // A rename takes the link's place and leaves its target alone.
  EXPECT_EQ(outcome(store_->replace("leaf", as_bytes("new"))), "ok");
  EXPECT_EQ(file_text(outside / "secret"), "secret");
  EXPECT_EQ(file_text(root_ / "leaf"), "new");
}

TEST_F(LocalStoreTest, RefusesALinkInPlaceOfTheTemporaryFolder) {
  const fs::path outside = scratch_.path() / "outside";
  fs::create_directory(outside);
  fs::create_directory(root_);
  fs::create_directory_symlink(outside, root_ / LocalStore::kTemporaryFolder);
  EXPECT_EQ(outcome(create("a", "1")), "corrupt");
  EXPECT_EQ(outcome(store_->replace("a", {})), "corrupt");
  EXPECT_TRUE(fs::is_empty(outside));
}

TEST_F(LocalStoreTest, RefusesPipesWithoutWaitingForThem) {
  fs::create_directory(root_);
  ASSERT_EQ(::mkfifo((root_ / "pipe").c_str(), 0600), 0);
  std::array<std::byte, 1> byte;
  EXPECT_EQ(outcome(store_->read("pipe", 0, byte)), "corrupt");
  EXPECT_EQ(outcome(store_->size_bytes("pipe")), "corrupt");
  EXPECT_EQ(outcome(create("pipe", "1")), "corrupt");
  EXPECT_EQ(names(), "");
}

TEST_F(LocalStoreTest, SaysWhenANameIsAFileHereAndAFolderThere) {
  ASSERT_EQ(outcome(create("a/b", "1")), "ok");
  const Status folder = create("a", "2");
  ASSERT_EQ(outcome(folder), "invalid argument");
  EXPECT_NE(folder.error().message.find("is a folder of objects"), std::string::npos);
  const Status file = create("a/b/c", "2");
  ASSERT_EQ(outcome(file), "invalid argument");
  EXPECT_NE(file.error().message.find("is a file"), std::string::npos);
  EXPECT_EQ(names(), "a/b ");
  EXPECT_TRUE(fs::is_empty(root_ / LocalStore::kTemporaryFolder));
}

TEST_F(LocalStoreTest, ListsNothingThatIsNoObject) {
  ASSERT_EQ(outcome(create("a/b", "1")), "ok");
  write_text(root_ / LocalStore::kTemporaryFolder / "0123456789abcdef", "left by a killed writer");
  write_text(root_ / "README.TXT", "a person's note");
  write_text(root_ / "a" / "b~", "an editor's copy");
  fs::create_directories(root_ / "Lost");
  write_text(root_ / "Lost" / "x", "x");
  fs::create_directories(root_ / "1/2/3/4/5/6/7/8");
  write_text(root_ / "1/2/3/4/5/6/7/8/9", "too deep");
  write_text(root_ / "1/2/3/4/5/6/7/0", "too deep");
  write_text(root_ / "1/2/3/4/5/6/0", "deep");
  EXPECT_EQ(names(), "1/2/3/4/5/6/0 a/b ");
}

TEST_F(LocalStoreTest, SeesTheBucketAnewWhenItIsRemovedAndMadeAgain) {
  ASSERT_EQ(outcome(create("a/b", "1")), "ok");
  fs::remove_all(root_);
  EXPECT_EQ(outcome(store_->size_bytes("a/b")), "not found");
  ASSERT_EQ(outcome(create("a/b", "2")), "ok");
  EXPECT_EQ(file_text(root_ / "a/b"), "2");
}

TEST_F(LocalStoreTest, ReportsAnObjectThatWasCutShort) {
  ASSERT_EQ(outcome(create("a", "0123456789")), "ok");
  fs::resize_file(root_ / "a", 4);
  std::array<std::byte, 10> out;
  const Status got = store_->read("a", 0, out);
  ASSERT_EQ(outcome(got), "corrupt");
  EXPECT_NE(got.error().message.find("found 4 bytes"), std::string::npos) << got.error().message;
}

}  // namespace
}  // namespace siltstone
