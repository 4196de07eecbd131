#include "store/local.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <span>
#include <system_error>
#include <utility>

#include "base/direct_file.h"
#include "base/try.h"
#include "store/beneath.h"
#include "store/names.h"
#include "store/sources.h"

namespace siltstone {
namespace {

// Folders remembered as durable; a store that meets more forgets them all and syncs again.
constexpr size_t kMaxDurableFolders = 4096;

// A file in the temporary folder, unlinked when it goes out of scope.
class Temporary {
 public:
  static Result<Temporary> create(const File& root) {
    Result<File> folder = open_folder(root, LocalStore::kTemporaryFolder);
    if (!folder && folder.error().code == Code::kNotFound) {
      if (::mkdirat(root.fd(), LocalStore::kTemporaryFolder, 0777) != 0 && errno != EEXIST) {
        return os_error(errno, "create directory", root.path() / LocalStore::kTemporaryFolder);
      }
      folder = open_folder(root, LocalStore::kTemporaryFolder);
    }
    if (!folder) return std::move(folder).error();
    std::string name = unique_name("");
    const int fd = ::openat(folder->fd(), name.c_str(),
                            O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return os_error(errno, "create", folder->path() / name);
    File file(fd, folder->path() / name);
    return Temporary(*std::move(folder), std::move(name), std::move(file));
  }

  Temporary(Temporary&& other) noexcept
      : folder_(std::move(other.folder_)),
        name_(std::exchange(other.name_, {})),
        file_(std::move(other.file_)) {}
  Temporary& operator=(Temporary&&) = delete;
  ~Temporary() { discard(); }

  // Copies the content and makes it durable. After an error the file must be discarded: a later
  // fsync may succeed although pages were lost.
  Status fill(const ByteSource& content) {
    if (content.size_bytes() <= kMaxPieceBytes) return copy(content, file_);
    SILT_ASSIGN(DirectFile large, DirectFile::adopt(std::move(file_), content.size_bytes()));
    return copy(content, large);
  }

  void discard() {
    if (!name_.empty()) ::unlinkat(folder_.fd(), name_.c_str(), 0);
    name_.clear();
  }

  // Gives the file its final name; kConflict if that exists.
  Status link_to(const File& folder, const std::string& leaf) {
    if (::linkat(folder_.fd(), name_.c_str(), folder.fd(), leaf.c_str(), 0) == 0) {
      discard();
      return {};
    }
    const int link_error = errno;
    if (link_error != EPERM && link_error != EOPNOTSUPP && link_error != EMLINK &&
        link_error != ENOSYS) {
      return os_error(link_error, "create", folder.path() / leaf);
    }
    if (::renameat2(folder_.fd(), name_.c_str(), folder.fd(), leaf.c_str(), RENAME_NOREPLACE) ==
        0) {
      name_.clear();
      return {};
    }
    const int rename_error = errno;
    if (rename_error != EINVAL && rename_error != ENOSYS && rename_error != EOPNOTSUPP) {
      return os_error(rename_error, "create", folder.path() / leaf);
    }
    return Error{Code::kUnsupported,
                 "the file system of '" + folder.path().string() +
                     "' has neither hard links nor exclusive rename, so two publishers could "
                     "overwrite each other there; use another file system for the bucket"};
  }

  Status rename_to(const File& folder, const std::string& leaf) {
    if (::renameat(folder_.fd(), name_.c_str(), folder.fd(), leaf.c_str()) != 0) {
      return os_error(errno, "replace", folder.path() / leaf);
    }
    name_.clear();
    return {};
  }

 private:
  Temporary(File folder, std::string name, File file)
      : folder_(std::move(folder)), name_(std::move(name)), file_(std::move(file)) {}

  template <class Target>
  static Status copy(const ByteSource& content, Target& target) {
    const uint64_t size_bytes = content.size_bytes();
    std::vector<std::byte> piece(std::min(size_bytes, kMaxPieceBytes));
    for (uint64_t done = 0; done < size_bytes;) {
      const std::span<std::byte> part(piece.data(), std::min(size_bytes - done, kMaxPieceBytes));
      SILT_TRY(content.read(done, part));
      SILT_TRY(target.write_at(done, part));
      done += part.size();
    }
    SILT_TRY(target.sync());
    return target.close();
  }

  File folder_;
  std::string name_;
  File file_;
};

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

// Appends the objects beneath `folder` whose leaf starts with `leaf_prefix`. `path` is the folder's
// name with its slash. What is not an object (odd names, links, temporary files) is passed over.
Status list_folder(const File& folder, const std::string& path, std::string_view leaf_prefix,
                   std::vector<ObjectInfo>* out) {
  const int fd = ::openat(folder.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return os_error(errno, "open", folder.path());
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(fd));
  if (dir == nullptr) {
    const int error = errno;
    ::close(fd);
    return os_error(error, "list", folder.path());
  }
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) {
      if (errno != 0) return os_error(errno, "list", folder.path());
      return {};
    }
    const std::string leaf = entry->d_name;
    if (!leaf.starts_with(leaf_prefix) || !is_object_name(path + leaf)) continue;
    struct stat st;
    if (::fstatat(folder.fd(), leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return os_error(errno, "examine", folder.path() / leaf);
    }
    if (S_ISREG(st.st_mode)) out->push_back({path + leaf, static_cast<uint64_t>(st.st_size)});
    if (!S_ISDIR(st.st_mode) || !is_object_prefix(path + leaf + "/")) continue;
    Result<File> inner = open_folder(folder, leaf);
    if (!inner && inner.error().code == Code::kNotFound) continue;
    if (!inner) return std::move(inner).error();
    SILT_TRY(list_folder(*inner, path + leaf + "/", "", out));
  }
}

}  // namespace

Result<std::shared_ptr<LocalStore>> LocalStore::open(const std::filesystem::path& root) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(root, error);
  if (error) return os_error(error.value(), "resolve", root);
  if (!absolute.has_filename() && absolute.has_relative_path()) absolute = absolute.parent_path();
  const Result<File> opened = open_root(absolute);
  if (!opened && opened.error().code != Code::kNotFound) return opened.error();
  return std::make_shared<LocalStore>(absolute);
}

Result<uint64_t> LocalStore::size_bytes(std::string_view name) {
  SILT_TRY(check_object_name(name));
  const SplitName split = split_name(name);
  auto examine = [&]() -> Result<uint64_t> {
    SILT_ASSIGN(File root, open_root(root_));
    SILT_ASSIGN(const File folder, open_folders(std::move(root), split.folder));
    return file_size_bytes(folder, split.leaf);
  };
  Result<uint64_t> size = examine();
  if (!size && size.error().code == Code::kNotFound) return no_such_object(name, url());
  return size;
}

Status LocalStore::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  SILT_TRY(check_object_name(name));
  const SplitName split = split_name(name);
  auto open = [&]() -> Result<File> {
    SILT_ASSIGN(File root, open_root(root_));
    SILT_ASSIGN(const File folder, open_folders(std::move(root), split.folder));
    return open_file(folder, split.leaf);
  };
  const Result<File> file = open();
  if (!file && file.error().code == Code::kNotFound) return no_such_object(name, url());
  if (!file) return file.error();
  SILT_ASSIGN(const FileStat stat, file->stat());
  SILT_TRY(check_range(name, stat.size_bytes, offset_bytes, out.size()).in("'" + url() + "'"));
  return file->read_at(offset_bytes, out);
}

Result<File> LocalStore::open_or_make_root() {
  Result<File> root = open_root(root_);
  if (root || root.error().code != Code::kNotFound) return root;
  SILT_TRY(make_directories(root_));
  return open_root(root_);
}

bool LocalStore::known_durable(std::string_view folder) {
  const std::lock_guard lock(mutex_);
  return durable_folders_.contains(folder);
}

Result<File> LocalStore::make_parent(File root, std::string_view folder) {
  // A folder that exists may have been made a moment ago by somebody who has not synced it yet, so
  // the first use of each syncs it here too.
  SILT_ASSIGN(File made, make_folders(std::move(root), folder, [this](std::string_view path) {
                return known_durable(path);
              }));
  const std::lock_guard lock(mutex_);
  if (durable_folders_.size() > kMaxDurableFolders) durable_folders_.clear();
  for (size_t end = folder.find('/'); end != folder.npos; end = folder.find('/', end + 1)) {
    durable_folders_.emplace(folder.substr(0, end));
  }
  durable_folders_.emplace(folder);
  return made;
}

Status LocalStore::create(std::string_view name, const ByteSource& content) {
  // Looked up first because it saves writing gigabytes for nothing; the link decides.
  const Result<uint64_t> present = size_bytes(name);
  if (present) return object_exists(name, url());
  if (present.error().code != Code::kNotFound) return present.error();
  Status created = create_checked(name, content);
  if (created) return created;
  if (created.error().code == Code::kConflict) return object_exists(name, url());
  return created.error().in("create object '" + std::string(name) + "'");
}

Status LocalStore::create_checked(std::string_view name, const ByteSource& content) {
  const SplitName split = split_name(name);
  SILT_ASSIGN(File root, open_or_make_root());
  SILT_ASSIGN(Temporary temporary, Temporary::create(root));
  SILT_TRY(temporary.fill(content));
  SILT_ASSIGN(File folder, make_parent(std::move(root), split.folder));
  const std::string leaf(split.leaf);
  Status linked = temporary.link_to(folder, leaf);
  if (!linked && linked.error().code == Code::kConflict && !file_size_bytes(folder, leaf)) {
    return Error{Code::kInvalidArgument,
                 "'" + (folder.path() / leaf).string() + "' is a folder of objects"};
  }
  SILT_TRY(std::move(linked));
  // The object stays if this fails: others may have seen it already.
  return folder.sync().in("it is visible but may not survive a power cut");
}

Status LocalStore::replace(std::string_view name, std::span<const std::byte> content) {
  SILT_TRY(check_object_name(name));
  const SplitName split = split_name(name);
  auto write = [&]() -> Status {
    SILT_ASSIGN(File root, open_or_make_root());
    SILT_ASSIGN(Temporary temporary, Temporary::create(root));
    SILT_TRY(temporary.fill(SpanSource(content)));
    SILT_ASSIGN(File folder, make_parent(std::move(root), split.folder));
    return temporary.rename_to(folder, std::string(split.leaf));
  };
  return write().in("replace object '" + std::string(name) + "'");
}

Result<std::vector<ObjectInfo>> LocalStore::list(std::string_view prefix) {
  SILT_TRY(check_object_prefix(prefix));
  const SplitName split = split_name(prefix);
  std::vector<ObjectInfo> out;
  auto walk = [&]() -> Status {
    SILT_ASSIGN(File root, open_root(root_));
    SILT_ASSIGN(const File folder, open_folders(std::move(root), split.folder));
    const std::string path(prefix.substr(0, prefix.size() - split.leaf.size()));
    return list_folder(folder, path, split.leaf, &out);
  };
  Status walked = walk();
  if (!walked && walked.error().code != Code::kNotFound) return std::move(walked).error();
  std::ranges::sort(out, {}, &ObjectInfo::name);
  return out;
}

Status LocalStore::remove(std::string_view name) {
  SILT_TRY(check_object_name(name));
  const SplitName split = split_name(name);
  auto unlink = [&]() -> Status {
    SILT_ASSIGN(File root, open_root(root_));
    SILT_ASSIGN(File folder, open_folders(std::move(root), split.folder));
    const std::string leaf(split.leaf);
    SILT_TRY(file_size_bytes(folder, leaf));
    if (::unlinkat(folder.fd(), leaf.c_str(), 0) != 0) {
      return os_error(errno, "remove", folder.path() / leaf);
    }
    return folder.sync();
  };
  Status removed = unlink();
  if (!removed && removed.error().code == Code::kNotFound) return {};
  return removed;
}

}  // namespace siltstone
