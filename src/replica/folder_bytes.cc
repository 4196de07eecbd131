#include "replica/folder_bytes.h"

#include "base/try.h"

namespace siltstone {
namespace {

Status check_header(const File& file, const WeightFile& expected) {
  const Error changed{Code::kMismatch, "'" + file.path().string() +
                                           "' is not the file that was put there: its header or "
                                           "size differs"};
  SILT_ASSIGN(const FileStat stat, file.stat());
  if (stat.size_bytes != expected.size_bytes) return changed;
  std::string prefix(8 + expected.header.size(), '\0');
  SILT_TRY(file.read_at(0, std::as_writable_bytes(std::span(prefix))));
  if (load_le<uint64_t>(prefix.data()) != expected.header.size()) return changed;
  if (prefix.compare(8, std::string::npos, expected.header) != 0) return changed;
  return {};
}

}  // namespace

Result<std::unique_ptr<FolderBytes>> FolderBytes::open(const std::filesystem::path& folder,
                                                       const Schema& schema) {
  auto bytes = std::make_unique<FolderBytes>();
  bytes->places_ = file_places(schema);
  for (const WeightFile& expected : schema.files) {
    Result<File> file = File::open_read(folder / expected.path);
    if (!file) {
      Error error = std::move(file).error();
      if (error.code == Code::kNotFound) error.code = Code::kMismatch;
      return error;
    }
    SILT_TRY(check_header(*file, expected));
    bytes->files_.push_back(*std::move(file));
  }
  return bytes;
}

}  // namespace siltstone
