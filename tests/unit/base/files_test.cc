#include "base/files.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <set>

#include "unit/base/temp_folder.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

TEST(OsError, CodesSayWhatToDo) {
  EXPECT_EQ(os_error(ENOENT, "open", "x").code, Code::kNotFound);
  EXPECT_EQ(os_error(ENOTDIR, "open", "x").code, Code::kNotFound);
  EXPECT_EQ(os_error(EEXIST, "create", "x").code, Code::kConflict);
  EXPECT_EQ(os_error(EACCES, "open", "x").code, Code::kPermission);
  EXPECT_EQ(os_error(EROFS, "open", "x").code, Code::kPermission);
  EXPECT_EQ(os_error(EIO, "read", "x").code, Code::kIo);
  EXPECT_EQ(os_error(ENOSPC, "write", "a/b").message,
            "cannot write 'a/b': No space left on device; free some space and run the command "
            "again");
}

TEST(FileTest, WritesAndReadsAtPositions) {
  const TempFolder folder;
  auto file = File::create(folder.path() / "f");
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write_at(3, as_bytes("abc")));
  ASSERT_TRUE(file->resize(8));
  std::string bytes(8, '?');
  ASSERT_TRUE(file->read_at(0, std::as_writable_bytes(std::span(bytes))));
  EXPECT_EQ(bytes, std::string_view("\0\0\0abc\0\0", 8));
  EXPECT_EQ(file->stat()->size_bytes, 8U);
  EXPECT_TRUE(file->sync());
  EXPECT_TRUE(file->close());
  EXPECT_TRUE(file->close());
  EXPECT_FALSE(file->is_open());
}

TEST(FileTest, ReadingBeyondTheEndIsCorrupt) {
  const TempFolder folder;
  const auto file = File::open_read(folder.write("f", "abc"));
  ASSERT_TRUE(file);
  std::string bytes(5, '?');
  const Status status = file->read_at(1, std::as_writable_bytes(std::span(bytes)));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorrupt);
  EXPECT_EQ(status.error().message,
            "'" + (folder.path() / "f").string() + "' ends at byte 3, 3 bytes too early");
}

TEST(FileTest, CreatesOnlyWhatIsNotThere) {
  const TempFolder folder;
  folder.write("f", "abc");
  fs::create_symlink("elsewhere", folder.path() / "link");
  for (const char* name : {"f", "link"}) {
    const auto file = File::create(folder.path() / name);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code, Code::kConflict);
  }
  EXPECT_EQ(slurp(folder.path() / "f"), "abc");
  EXPECT_FALSE(fs::exists(folder.path() / "elsewhere"));
}

TEST(FileTest, MovingHandsTheDescriptorOver) {
  const TempFolder folder;
  auto first = File::open_read(folder.write("f", "abc"));
  ASSERT_TRUE(first);
  const int fd = first->fd();
  File second = *std::move(first);
  EXPECT_EQ(second.fd(), fd);
  EXPECT_FALSE(first->is_open());
  second = File();
  EXPECT_FALSE(second.is_open());
}

TEST(ReadFile, HoldsTheLimit) {
  const TempFolder folder;
  const fs::path path = folder.write("f", "abc");
  EXPECT_EQ(*read_file(path, 3), "abc");
  const auto large = read_file(path, 2);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, Code::kUnsupported);
  const auto gone = read_file(folder.path() / "gone", 2);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Code::kNotFound);
}

TEST(ReplaceFile, LeavesOnlyTheNewContent) {
  const TempFolder folder;
  const fs::path path = folder.write("f", "old and longer");
  ASSERT_TRUE(replace_file(path, as_bytes("new")));
  EXPECT_EQ(slurp(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(ReplaceFile, CleansUpWhenItFails) {
  const TempFolder folder;
  fs::create_directories(folder.path() / "f" / "full");
  EXPECT_FALSE(replace_file(folder.path() / "f", as_bytes("new")));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(MakeDirectories, MakesWhatIsMissing) {
  const TempFolder folder;
  ASSERT_TRUE(make_directories(folder.path() / "a/b/c"));
  EXPECT_TRUE(fs::is_directory(folder.path() / "a/b/c"));
  EXPECT_TRUE(make_directories(folder.path() / "a/b/c"));
  folder.write("file", "");
  EXPECT_FALSE(make_directories(folder.path() / "file"));
  EXPECT_FALSE(make_directories(folder.path() / "file/below"));
}

TEST(RenameFile, ReplacesTheTarget) {
  const TempFolder folder;
  ASSERT_TRUE(rename_file(folder.write("a", "new"), folder.write("b", "old")));
  EXPECT_EQ(slurp(folder.path() / "b"), "new");
  EXPECT_FALSE(rename_file(folder.path() / "a", folder.path() / "c"));
}

TEST(StatFile, TellsFilesApart) {
  const TempFolder folder;
  const auto a = stat_file(folder.write("a", "x"));
  const auto b = stat_file(folder.write("b", "x"));
  ASSERT_TRUE(a && b);
  EXPECT_NE(a->inode, b->inode);
  EXPECT_EQ(*a, *stat_file(folder.path() / "a"));
  EXPECT_FALSE(stat_file(folder.path() / "gone"));
}

TEST(UniqueName, DoesNotRepeat) {
  std::set<std::string> names;
  for (int i = 0; i < 1000; ++i) names.insert(unique_name("p-"));
  EXPECT_EQ(names.size(), 1000U);
  EXPECT_EQ(names.begin()->size(), 18U);
}

}  // namespace
}  // namespace siltstone
