// Files of other layouts: numbered names, safetensors files with their metadata, and files that
// appear whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "siltstone/checkpoint.h"

namespace siltstone {

// Keys under which an export notes what a version is; other programs pass them over.
inline constexpr std::string_view kVersionKey = "siltstone_version";
inline constexpr std::string_view kRootKey = "siltstone_root";

// Six digits, more where the number needs them.
std::string six_digits(uint64_t number);
// The number in prefix + six_digits(number) + suffix; empty for every other name.
std::optional<uint64_t> number_in(std::string_view name, std::string_view prefix,
                                  std::string_view suffix);
// A decimal number without sign, of at most 18 digits.
std::optional<uint64_t> parse_number(std::string_view text);

// Names in a folder, sorted; none if the folder is absent. At most 1,000,000.
Result<std::vector<std::string>> list_names(const std::filesystem::path& folder);

using Metadata = std::map<std::string, std::string>;

// A safetensors file and the __metadata__ in its header.
struct ForeignFile {
  std::unique_ptr<Checkpoint> checkpoint;
  Metadata metadata;
};
Result<ForeignFile> open_foreign(const std::filesystem::path& path);

// A JSON document of at most 32 MiB. kNotFound if there is no such file.
Result<Json> read_json_file(const std::filesystem::path& path);

// One tensor of `file`, whole. REQUIRES: its size has been found to be what it may be.
Result<std::vector<std::byte>> read_tensor(const Checkpoint& file, size_t index);

// A tensor that is to be written; borrows its bytes.
struct Piece {
  TensorInfo info;
  ByteSpan bytes;
};

// Writes a safetensors file with pieces of wider words first, so that all are aligned, durably.
// Returns its size. Creates: kConflict if the path exists.
Result<uint64_t> write_safetensors(
    const std::filesystem::path& path, std::vector<Piece> pieces,
    const std::vector<std::pair<std::string, std::string>>& metadata);

// Gives what was built at `from` its final name; kConflict if that exists. Durable.
Status install_new(const std::filesystem::path& from, const std::filesystem::path& to);

// A name beside `final_path` that readers pass over; what is there is removed at the end.
class Building {
 public:
  explicit Building(const std::filesystem::path& final_path);
  ~Building();
  Building(const Building&) = delete;
  Building& operator=(const Building&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace siltstone
