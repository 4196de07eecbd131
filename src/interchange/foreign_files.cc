#include "interchange/foreign_files.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/numbers.h"
#include "base/try.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxDigits = 18;
constexpr uint64_t kMaxJsonBytes = uint64_t{32} << 20;
constexpr size_t kMaxNames = 1'000'000;
constexpr uint64_t kDataAlignment = 8;

}  // namespace

std::string six_digits(uint64_t number) {
  const std::string digits = std::to_string(number);
  return std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  return text.size() <= kMaxDigits ? parse_decimal(text) : std::nullopt;
}

std::optional<uint64_t> number_in(std::string_view name, std::string_view prefix,
                                  std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size()) return std::nullopt;
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  name = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  const std::optional<uint64_t> number = parse_number(name);
  if (!number || six_digits(*number) != name) return std::nullopt;
  return number;
}

Result<std::vector<std::string>> list_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  if (fs::symlink_status(folder, error).type() == fs::file_type::not_found) return names;
  error.clear();
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (names.size() == kMaxNames) {
      return Error{Code::kUnsupported, "'" + folder.string() + "' holds more than " +
                                           std::to_string(kMaxNames) + " files"};
    }
    names.push_back(at->path().filename().string());
  }
  if (error) return os_error(error.value(), "list folder", folder);
  std::ranges::sort(names);
  return names;
}

Result<ForeignFile> open_foreign(const fs::path& path) {
  ForeignFile file;
  SILT_ASSIGN(file.checkpoint, open_checkpoint(path));
  const WeightFile& weights = file.checkpoint->files().front();
  SILT_ASSIGN(SafetensorsHeader header,
              parse_safetensors_header(
                  weights.header, weights.size_bytes - kLengthFieldBytes - weights.header.size()));
  for (auto& [key, value] : header.metadata) file.metadata[key] = std::move(value);
  return file;
}

Result<Json> read_json_file(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  // A pipe would be waited for.
  if (type != fs::file_type::regular && type != fs::file_type::not_found)
    return Error{Code::kCorrupt, "'" + path.string() + "' is not a file"};
  SILT_ASSIGN(const std::string text, read_file(path, kMaxJsonBytes));
  JsonLimits limits;
  limits.bytes = kMaxJsonBytes;
  return parse_json(text, limits).in("'" + path.string() + "'");
}

Result<std::vector<std::byte>> read_tensor(const Checkpoint& file, size_t index) {
  std::vector<std::byte> bytes(file.tensors()[index].size_bytes);
  SILT_TRY(file.read(index, 0, bytes));
  return bytes;
}

Result<uint64_t> write_safetensors(
    const fs::path& path, std::vector<Piece> pieces,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::ranges::sort(pieces, [](const Piece& x, const Piece& y) {
    const unsigned x_word = dtype_info(x.info.dtype).word_bytes;
    const unsigned y_word = dtype_info(y.info.dtype).word_bytes;
    return x_word != y_word ? x_word > y_word : x.info.name < y.info.name;
  });
  std::vector<TensorInfo> infos;
  infos.reserve(pieces.size());
  for (const Piece& piece : pieces) infos.push_back(piece.info);
  const std::string prefix = make_safetensors_prefix(infos, metadata, kDataAlignment);
  if (prefix.size() - kLengthFieldBytes > kMaxHeaderBytes) {
    return Error{Code::kUnsupported, "the header of '" + path.string() + "' would have more than " +
                                         std::to_string(kMaxHeaderBytes) + " bytes"};
  }
  SILT_ASSIGN(File file, File::create(path));
  SILT_TRY(file.write_at(0, as_bytes(prefix)));
  uint64_t at = prefix.size();
  for (const Piece& piece : pieces) {
    SILT_TRY(file.write_at(at, piece.bytes));
    at += piece.bytes.size();
  }
  SILT_TRY(file.sync());
  SILT_TRY(file.close());
  return at;
}

Status install_new(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) {
      return Error{Code::kConflict,
                   "'" + to.string() + "' exists already; it is never overwritten"};
    }
    if (errno != EINVAL && errno != ENOSYS) return os_error(errno, "rename to", to);
    // A file system without that kind of rename: two writers at once are not told apart.
    std::error_code error;
    if (fs::symlink_status(to, error).type() != fs::file_type::not_found) {
      return Error{Code::kConflict,
                   "'" + to.string() + "' exists already; it is never overwritten"};
    }
    SILT_TRY(rename_file(from, to));
  }
  return sync_directory(to.parent_path());
}

Building::Building(const fs::path& final_path)
    : path_(final_path.parent_path() /
            unique_name("." + final_path.filename().string() + ".new-")) {}

Building::~Building() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace siltstone
