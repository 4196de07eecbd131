// What the directory store does when the system refuses: no space, no rights, no links, no sync.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <cerrno>
#include <filesystem>

#include "contract/store_contract.h"
#include "store/local.h"
#include "unit/store/child.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNotPossible = "<not possible here>";
constexpr uint64_t kSizeBytes = uint64_t{6} << 20;

class LocalStoreFailure : public testing::Test {
 protected:
  LocalStoreFailure() : root_(scratch_.path() / "bucket"), store_(*LocalStore::open(root_)) {}

  // "CODE: message" or "ok", then the objects and the number of temporary files that are left.
  std::string after(const Status& got) {
    std::string out = got ? "ok" : outcome(got) + ": " + got.error().message;
    out += " | objects:";
    const auto objects = store_->list("");
    if (!objects) return out + " " + objects.error().message;
    for (const ObjectInfo& object : *objects) out += " " + object.name;
    std::error_code none;
    const fs::directory_iterator temporaries(root_ / LocalStore::kTemporaryFolder, none);
    return out + " | temporary: " + std::to_string(std::distance(temporaries, {}));
  }
  std::string create(std::string_view name, uint64_t size_bytes = 10) {
    return after(store_->create(name, PatternSource(1, size_bytes)));
  }

  ScratchFolder scratch_;
  const fs::path root_;
  std::shared_ptr<LocalStore> store_;
};

#define EXPECT_CONTAINS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << (text) << "\nlacks: " << (part)

TEST_F(LocalStoreFailure, FullDiskLeavesNothing) {
  const std::string report = report_of_child([&]() -> std::string {
    fs::create_directory(root_);
    // A mount of its own, gone when the child ends.
    if (::unshare(CLONE_NEWNS) != 0) return kNotPossible;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNotPossible;
    if (::mount("none", root_.c_str(), "tmpfs", 0, "size=3m") != 0) return kNotPossible;
    const std::string big = create("obj/big", kSizeBytes);
    return big + "\n" + create("obj/small");
  });
  if (report == kNotPossible) GTEST_SKIP() << "mounting needs rights that this process lacks";
  EXPECT_CONTAINS(report, "input/output: create object 'obj/big': cannot reserve ");
  EXPECT_CONTAINS(report, "No space left on device; free some space");
  EXPECT_CONTAINS(report, " | objects: | temporary: 0\n");
  EXPECT_CONTAINS(report, "\nok | objects: obj/small | temporary: 0");
}

TEST_F(LocalStoreFailure, FileSizeLimitLeavesNothing) {
  const std::string report = report_of_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {kSizeBytes / 2, kSizeBytes / 2};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string big = create("obj/big", kSizeBytes);
    return big + "\n" + create("obj/small");
  });
  EXPECT_CONTAINS(report, "input/output: create object 'obj/big': cannot reserve ");
  EXPECT_CONTAINS(report, "File too large | objects: | temporary: 0\n");
  EXPECT_CONTAINS(report, "\nok | objects: obj/small | temporary: 0");
}

TEST_F(LocalStoreFailure, FailedSyncLeavesNothing) {
  ASSERT_EQ(create("obj/first"), "ok | objects: obj/first | temporary: 0");
  const std::string report = report_of_child([&]() -> std::string {
    if (!deny({{__NR_fsync, EIO}})) return kNotPossible;
    const std::string created = create("obj/second");
    return created + "\n" + after(store_->replace("head/a", {}));
  });
  if (report == kNotPossible) GTEST_SKIP() << "system calls cannot be denied here";
  EXPECT_CONTAINS(report, "input/output: create object 'obj/second': cannot sync '");
  EXPECT_CONTAINS(report, "Input/output error | objects: obj/first | temporary: 0\n");
  EXPECT_CONTAINS(report, "\ninput/output: replace object 'head/a': cannot sync '");
}

TEST_F(LocalStoreFailure, FailedWriteOfAReplacementKeepsTheOldContent) {
  ASSERT_EQ(outcome(store_->replace("head/a", as_bytes("old"))), "ok");
  const std::string report = report_of_child([&]() -> std::string {
    if (!deny({{__NR_pwrite64, ENOSPC}})) return kNotPossible;
    return after(store_->replace("head/a", as_bytes("newer")));
  });
  if (report == kNotPossible) GTEST_SKIP() << "system calls cannot be denied here";
  EXPECT_CONTAINS(report, "No space left on device; free some space");
  EXPECT_EQ(*store_->size_bytes("head/a"), 3U);
}

TEST_F(LocalStoreFailure, WithoutHardLinksAnExclusiveRenameCommits) {
  for (const int error : {EPERM, EOPNOTSUPP, EMLINK}) {
    fs::remove_all(root_);
    const std::string report = report_of_child([&]() -> std::string {
      if (!deny({{__NR_linkat, error}})) return kNotPossible;
      const std::string created = create("obj/a");
      // The lookup that comes first would hide the rename's own answer.
      class Late final : public ByteSource {
       public:
        explicit Late(LocalStore& store) : store_(store) {}
        uint64_t size_bytes() const override { return 1; }
        Status read(uint64_t, std::span<std::byte>) const override {
          return store_.create("obj/b", SpanSource("first"));
        }

       private:
        LocalStore& store_;
      };
      return created + "\n" + after(store_->create("obj/b", Late(*store_)));
    });
    if (report == kNotPossible) GTEST_SKIP() << "system calls cannot be denied here";
    EXPECT_CONTAINS(report, "ok | objects: obj/a | temporary: 0\n");
    EXPECT_CONTAINS(report, "\nconflict: object 'obj/b' exists already in '");
    EXPECT_CONTAINS(report, " | objects: obj/a obj/b | temporary: 0");
    EXPECT_EQ(*store_->size_bytes("obj/b"), 5U);
  }
}

TEST_F(LocalStoreFailure, WithoutLinksAndExclusiveRenameItRefuses) {
  const std::string report = report_of_child([&]() -> std::string {
    if (!deny({{__NR_linkat, EPERM}, {__NR_renameat2, EINVAL}})) return kNotPossible;
    return create("obj/a");
  });
  if (report == kNotPossible) GTEST_SKIP() << "system calls cannot be denied here";
  EXPECT_CONTAINS(report, "unsupported: create object 'obj/a': the file system of '");
  EXPECT_CONTAINS(report, "neither hard links nor exclusive rename");
  EXPECT_CONTAINS(report, " | objects: | temporary: 0");
}

TEST_F(LocalStoreFailure, AnUnwritableDirectoryCanBeReadOnly) {
  ASSERT_EQ(create("obj/a"), "ok | objects: obj/a | temporary: 0");
  for (const char* folder : {"", "obj", LocalStore::kTemporaryFolder}) {
    fs::permissions(root_ / folder, fs::perms{0555});
  }
  const std::string report = report_of_child([&]() -> std::string {
    if (!give_up_rights()) return kNotPossible;
    const auto opened = LocalStore::open(root_);
    return outcome(opened) + " " + outcome((*opened)->size_bytes("obj/a")) + " " +
           outcome((*opened)->replace("head/a", {})) + " " + outcome((*opened)->remove("obj/a")) +
           " " + create("obj/b");
  });
  for (const char* folder : {"", "obj", LocalStore::kTemporaryFolder}) {
    fs::permissions(root_ / folder, fs::perms{0755});
  }
  if (report == kNotPossible) GTEST_SKIP() << "this process cannot give up its rights";
  EXPECT_CONTAINS(report, "ok ok permission permission permission: create object 'obj/b': cannot");
  EXPECT_CONTAINS(report, "Permission denied | objects: obj/a");
}

TEST_F(LocalStoreFailure, ADirectoryThatCannotBeMadeIsAQuestionOfRights) {
  fs::permissions(scratch_.path(), fs::perms{0555});
  const std::string report = report_of_child([&]() -> std::string {
    if (!give_up_rights()) return kNotPossible;
    return create("obj/b");
  });
  fs::permissions(scratch_.path(), fs::perms{0755});
  if (report == kNotPossible) GTEST_SKIP() << "this process cannot give up its rights";
  EXPECT_CONTAINS(report, "permission: create object 'obj/b': cannot create directory");
}

TEST_F(LocalStoreFailure, ListingAFolderDoesNotLookIntoOthers) {
  ASSERT_EQ(outcome(store_->create("log/main/1", SpanSource("1"))), "ok");
  ASSERT_EQ(outcome(store_->create("obj/main/1", SpanSource("1"))), "ok");
  fs::permissions(root_ / "obj", fs::perms{0});
  const std::string report = report_of_child([&]() -> std::string {
    if (!give_up_rights()) return kNotPossible;
    return outcome(store_->list("log/")) + " " + outcome(store_->list("log/ma")) + " " +
           outcome(store_->list("l")) + " " + outcome(store_->list(""));
  });
  fs::permissions(root_ / "obj", fs::perms{0755});
  if (report == kNotPossible) GTEST_SKIP() << "this process cannot give up its rights";
  EXPECT_EQ(report, "ok ok ok permission");
}

TEST_F(LocalStoreFailure, MemoryDoesNotGrowWithTheObject) {
  constexpr uint64_t kLargeBytes = uint64_t{160} << 20;
  const std::string report = report_of_child([&]() -> std::string {
    rusage before;
    ::getrusage(RUSAGE_SELF, &before);
    const Status got = store_->create("large", PatternSource(1, kLargeBytes));
    rusage after_it;
    ::getrusage(RUSAGE_SELF, &after_it);
    const int64_t grown_bytes = int64_t{after_it.ru_maxrss - before.ru_maxrss} * 1024;
    return outcome(got) + (grown_bytes < int64_t{kLargeBytes} / 4
                               ? " bounded"
                               : " grew by " + std::to_string(grown_bytes));
  });
  EXPECT_EQ(report, "ok bounded");
}

}  // namespace
}  // namespace siltstone
