// POSIX files: whole reads and writes, durable creation, and the errors they give.
//
// Every error names the path. ENOSPC and EDQUOT say that the disk is full, EACCES and EPERM give
// kPermission, ENOENT kNotFound, EEXIST kConflict, everything else kIo.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "siltstone/result.h"

namespace siltstone {

// The Error for errno `error` of operation `what` on `path`.
Error os_error(int error, std::string_view what, const std::filesystem::path& path);

struct FileStat {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  bool operator==(const FileStat&) const = default;
};

// An open file descriptor. Threads: read_at and write_at may run on many threads.
class File {
 public:
  File() = default;
  explicit File(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  static Result<File> open_read(const std::filesystem::path& path);
  // Creates exclusively; never follows a symbolic link.
  static Result<File> create(const std::filesystem::path& path);

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::filesystem::path& path() const { return path_; }

  Result<FileStat> stat() const;
  // Fills `out`; kCorrupt if the file ends before.
  Status read_at(uint64_t offset_bytes, MutByteSpan out) const;
  Status write_at(uint64_t offset_bytes, ByteSpan bytes);
  Status resize(uint64_t size_bytes);
  // Data and metadata on disk. An error is final: the file must be discarded.
  Status sync();
  Status close();

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

Result<FileStat> stat_file(const std::filesystem::path& path);

// The whole file, or kUnsupported if it is larger than `limit_bytes`.
Result<std::string> read_file(const std::filesystem::path& path, uint64_t limit_bytes);

// Replaces `path` by `content` through a temporary file and rename: a reader sees the old or the
// new content, and after return the new one survives a power cut.
Status replace_file(const std::filesystem::path& path, ByteSpan content);

// Creates the missing directories of `path`, each durable in its parent.
Status make_directories(const std::filesystem::path& path);
Status sync_directory(const std::filesystem::path& path);

// rename(2), not yet durable: sync_directory both parents.
Status rename_file(const std::filesystem::path& from, const std::filesystem::path& to);

// Swaps two files atomically where the file system can; false where it cannot.
bool exchange_files(const std::filesystem::path& a, const std::filesystem::path& b);

// A name beside others that no other process will choose: prefix + 16 hexadecimal digits.
std::string unique_name(std::string_view prefix);

// Random bytes from the operating system.
void random_bytes(MutByteSpan out);

}  // namespace siltstone
