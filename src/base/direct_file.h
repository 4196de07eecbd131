// Writing large new files past the page cache.
//
// Filling the page cache with a file that is synced at once costs several times the disk's own
// time; O_DIRECT does not. Where the file system refuses it, writes are buffered.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/files.h"

namespace siltstone {

class DirectFile {
 public:
  DirectFile() = default;
  // Creates exclusively, reserving `size_bytes`: a full disk shows itself here.
  static Result<DirectFile> create(const std::filesystem::path& path, uint64_t size_bytes);

  // The same for a file that is open already, empty and writable.
  static Result<DirectFile> adopt(File file, uint64_t size_bytes);

  bool is_open() const { return file_.is_open(); }
  // Any offset and length inside the file; ranges that touch should be written in pieces of
  // megabytes, since every end that is not a multiple of 4 KiB goes through the page cache.
  // Threads: several may write disjoint ranges.
  Status write_at(uint64_t offset_bytes, ByteSpan bytes);
  Status sync();
  Status close();
  const File& file() const { return file_; }

 private:
  File file_;    // through the page cache
  File direct_;  // not open where O_DIRECT is refused
};

}  // namespace siltstone
