#include "base/direct_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/try.h"

namespace siltstone {
namespace {

// What O_DIRECT asks of offsets, lengths and addresses on any device in use.
constexpr uint64_t kPage = 4096;
constexpr uint64_t kPieceBytes = uint64_t{2} << 20;

// A page-aligned buffer of kPieceBytes per thread.
std::byte* bounce_buffer() {
  struct alignas(kPage) Page {
    std::byte bytes[kPage];
  };
  thread_local std::vector<Page> pages;
  if (pages.empty()) pages.resize(kPieceBytes / kPage);
  return pages.front().bytes;
}

}  // namespace

Result<DirectFile> DirectFile::create(const std::filesystem::path& path, uint64_t size_bytes) {
  SILT_ASSIGN(File file, File::create(path));
  return adopt(std::move(file), size_bytes);
}

Result<DirectFile> DirectFile::adopt(File file, uint64_t size_bytes) {
  DirectFile out;
  out.file_ = std::move(file);
  // File systems without the call show a full disk later.
  const int error = ::posix_fallocate(out.file_.fd(), 0, static_cast<off_t>(size_bytes));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return os_error(error, "reserve " + format_bytes(size_bytes) + " for", out.file_.path());
  }
  SILT_TRY(out.file_.resize(size_bytes));
  // A second descriptor of the very same file, whatever its name is by now.
  const std::string self = "/proc/self/fd/" + std::to_string(out.file_.fd());
  const int direct = ::open(self.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
  if (direct >= 0) out.direct_ = File(direct, out.file_.path());
  return out;
}

Status DirectFile::write_at(uint64_t offset_bytes, ByteSpan bytes) {
  const uint64_t end = offset_bytes + bytes.size();
  const uint64_t first = align_up(offset_bytes, kPage);
  const uint64_t last = end & ~(kPage - 1);
  if (!direct_.is_open() || first >= last) return file_.write_at(offset_bytes, bytes);
  if (first > offset_bytes) {
    SILT_TRY(file_.write_at(offset_bytes, bytes.first(first - offset_bytes)));
  }
  for (uint64_t at = first; at < last;) {
    const uint64_t count = std::min(kPieceBytes, last - at);
    std::byte* const buffer = bounce_buffer();
    std::memcpy(buffer, bytes.data() + (at - offset_bytes), count);
    SILT_TRY(direct_.write_at(at, ByteSpan(buffer, count)));
    at += count;
  }
  return file_.write_at(last, bytes.subspan(last - offset_bytes));
}

Status DirectFile::sync() {
  return file_.sync();
}

Status DirectFile::close() {
  SILT_TRY(direct_.close());
  return file_.close();
}

}  // namespace siltstone
