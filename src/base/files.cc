#include "base/files.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/try.h"

namespace siltstone {
namespace {

// One write or read call moves at most this much: Linux caps a call near 2 GiB.
constexpr size_t kMaxCallBytes = size_t{1} << 30;

FileStat from_stat(const struct stat& st) {
  constexpr int64_t kSecond = 1'000'000'000;
  FileStat out;
  out.device = st.st_dev;
  out.inode = st.st_ino;
  out.size_bytes = static_cast<uint64_t>(st.st_size);
  out.mtime_ns = st.st_mtim.tv_sec * kSecond + st.st_mtim.tv_nsec;
  out.ctime_ns = st.st_ctim.tv_sec * kSecond + st.st_ctim.tv_nsec;
  return out;
}

std::filesystem::path parent_of(const std::filesystem::path& path) {
  const std::filesystem::path parent = path.parent_path();
  return parent.empty() ? std::filesystem::path(".") : parent;
}

}  // namespace

Error os_error(int error, std::string_view what, const std::filesystem::path& path) {
  Code code = Code::kIo;
  std::string hint;
  if (error == ENOENT || error == ENOTDIR) code = Code::kNotFound;
  if (error == EEXIST) code = Code::kConflict;
  if (error == EACCES || error == EPERM || error == EROFS) code = Code::kPermission;
  if (error == ENOSPC || error == EDQUOT) hint = "; free some space and run the command again";
  return {code, "cannot " + std::string(what) + " '" + path.string() +
                    "': " + std::string(std::strerror(error)) + hint};
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  if (this == &other) return *this;
  if (fd_ >= 0) ::close(fd_);
  fd_ = std::exchange(other.fd_, -1);
  path_ = std::move(other.path_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Result<File> File::open_read(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return os_error(errno, "open", path);
  return File(fd, path);
}

Result<File> File::create(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0) return os_error(errno, "create", path);
  return File(fd, path);
}

Result<FileStat> File::stat() const {
  struct stat st;
  if (::fstat(fd_, &st) != 0) return os_error(errno, "examine", path_);
  return from_stat(st);
}

Status File::read_at(uint64_t offset_bytes, MutByteSpan out) const {
  while (!out.empty()) {
    const size_t want = std::min(out.size(), kMaxCallBytes);
    const ssize_t got = ::pread(fd_, out.data(), want, static_cast<off_t>(offset_bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "read", path_);
    if (got == 0) {
      return Error{Code::kCorrupt, "'" + path_.string() + "' ends at byte " +
                                       std::to_string(offset_bytes) + ", " +
                                       std::to_string(out.size()) + " bytes too early"};
    }
    offset_bytes += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return {};
}

Status File::write_at(uint64_t offset_bytes, ByteSpan bytes) {
  while (!bytes.empty()) {
    const size_t want = std::min(bytes.size(), kMaxCallBytes);
    const ssize_t put = ::pwrite(fd_, bytes.data(), want, static_cast<off_t>(offset_bytes));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return os_error(put < 0 ? errno : ENOSPC, "write", path_);
    offset_bytes += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

Status File::resize(uint64_t size_bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0)
    return os_error(errno, "resize", path_);
  return {};
}

Status File::sync() {
  if (::fsync(fd_) != 0) return os_error(errno, "sync", path_);
  return {};
}

Status File::close() {
  if (fd_ < 0) return {};
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR)
    return os_error(errno, "close", path_);
  return {};
}

Result<FileStat> stat_file(const std::filesystem::path& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return os_error(errno, "examine", path);
  return from_stat(st);
}

Result<std::string> read_file(const std::filesystem::path& path, uint64_t limit_bytes) {
  SILT_ASSIGN(const File file, File::open_read(path));
  SILT_ASSIGN(const FileStat stat, file.stat());
  if (stat.size_bytes > limit_bytes) {
    return Error{Code::kUnsupported,
                 "'" + path.string() + "' has " + std::to_string(stat.size_bytes) +
                     " bytes, more than the " + std::to_string(limit_bytes) + " that are read"};
  }
  std::string content(stat.size_bytes, '\0');
  SILT_TRY(file.read_at(0, std::as_writable_bytes(std::span(content))));
  return content;
}

Status replace_file(const std::filesystem::path& path, ByteSpan content) {
  const std::filesystem::path parent = parent_of(path);
  const std::filesystem::path temporary =
      parent / unique_name("." + path.filename().string() + ".");
  auto write = [&]() -> Status {
    SILT_ASSIGN(File file, File::create(temporary));
    SILT_TRY(file.write_at(0, content));
    SILT_TRY(file.sync());
    SILT_TRY(file.close());
    return rename_file(temporary, path);
  };
  Status written = write();
  if (!written) {
    ::unlink(temporary.c_str());
    return written;
  }
  return sync_directory(parent);
}

Status make_directories(const std::filesystem::path& path) {
  if (path.empty()) return {};
  struct stat st;
  if (::stat(path.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) return {};
    return os_error(ENOTDIR, "use as a directory", path);
  }
  const std::filesystem::path parent = parent_of(path);
  SILT_TRY(make_directories(parent));
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) {
    return os_error(errno, "create directory", path);
  }
  return sync_directory(parent);
}

Status sync_directory(const std::filesystem::path& path) {
  const int fd = ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return os_error(errno, "open directory", path);
  const int outcome = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (outcome != 0) return os_error(error, "sync directory", path);
  return {};
}

Status rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return os_error(errno, "rename to", to);
  return {};
}

bool exchange_files(const std::filesystem::path& a, const std::filesystem::path& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

std::string unique_name(std::string_view prefix) {
  std::array<std::byte, 8> nonce;
  random_bytes(nonce);
  return std::string(prefix) + to_hex(nonce);
}

void random_bytes(MutByteSpan out) {
  // getrandom gives up to 256 bytes whole or fails only where the kernel lacks it.
  while (!out.empty()) {
    const ssize_t got = ::getrandom(out.data(), std::min<size_t>(out.size(), 256), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) std::abort();
    out = out.subspan(static_cast<size_t>(got));
  }
}

}  // namespace siltstone
