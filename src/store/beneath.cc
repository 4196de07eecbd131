#include "store/beneath.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/try.h"

namespace siltstone {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// What stands where a folder or file was expected.
Result<struct stat> examine(const File& folder, const std::string& leaf) {
  struct stat st;
  if (::fstatat(folder.fd(), leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return os_error(errno, "examine", folder.path() / leaf);
  }
  if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return st;
  return Error{Code::kCorrupt, "'" + (folder.path() / leaf).string() + "' is a " +
                                   (S_ISLNK(st.st_mode) ? "symbolic link" : "special file") +
                                   "; a bucket holds only files and folders"};
}

Error absent(const File& folder, const std::string& leaf) {
  return os_error(ENOENT, "open", folder.path() / leaf);
}

}  // namespace

SplitName split_name(std::string_view name) {
  const size_t slash = name.rfind('/');
  if (slash == name.npos) return {{}, name};
  return {name.substr(0, slash), name.substr(slash + 1)};
}

Result<File> open_root(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) return File(fd, path);
  if (errno == ENOTDIR) {
    return Error{Code::kInvalidArgument,
                 "'" + path.string() + "' is a file; expected the directory of a bucket"};
  }
  return os_error(errno, "open", path);
}

Result<File> open_folder(const File& parent, std::string_view component) {
  const std::string leaf(component);
  const int fd = ::openat(parent.fd(), leaf.c_str(), kFolderFlags);
  if (fd >= 0) return File(fd, parent.path() / leaf);
  const int error = errno;
  if (error == ENOTDIR || error == ELOOP) {
    SILT_TRY(examine(parent, leaf));
    return absent(parent, leaf);
  }
  return os_error(error, "open", parent.path() / leaf);
}

Result<File> open_folders(File root, std::string_view path) {
  File folder = std::move(root);
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    SILT_ASSIGN(folder, open_folder(folder, path.substr(0, slash)));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return folder;
}

Result<File> make_folders(File root, std::string_view path,
                          const std::function<bool(std::string_view)>& known_durable) {
  File folder = std::move(root);
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string component(path.substr(begin, end - begin));
    bool made = false;
    Result<File> next = open_folder(folder, component);
    if (!next && next.error().code == Code::kNotFound) {
      made = ::mkdirat(folder.fd(), component.c_str(), 0777) == 0;
      if (!made && errno != EEXIST) {
        return os_error(errno, "create directory", folder.path() / component);
      }
      next = open_folder(folder, component);
      if (!next && next.error().code == Code::kNotFound) {
        return Error{Code::kInvalidArgument,
                     "'" + (folder.path() / component).string() + "' is a file; expected a folder"};
      }
    }
    if (!next) return next;
    if (made || !known_durable(path.substr(0, end))) SILT_TRY(folder.sync());
    folder = *std::move(next);
    begin = end + 1;
  }
  return folder;
}

Result<uint64_t> file_size_bytes(const File& folder, std::string_view leaf_view) {
  const std::string leaf(leaf_view);
  SILT_ASSIGN(const struct stat st, examine(folder, leaf));
  if (S_ISDIR(st.st_mode)) return absent(folder, leaf);
  return static_cast<uint64_t>(st.st_size);
}

Result<File> open_file(const File& folder, std::string_view leaf_view) {
  const std::string leaf(leaf_view);
  // Examined first because opening a device or a pipe may have effects of its own; O_NONBLOCK for
  // the one that takes the file's place in between.
  SILT_TRY(file_size_bytes(folder, leaf));
  const int fd =
      ::openat(folder.fd(), leaf.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return os_error(errno, "open", folder.path() / leaf);
  return File(fd, folder.path() / leaf);
}

}  // namespace siltstone
