#include "tensor/folder.h"

#include <algorithm>
#include <array>
#include <system_error>

#include "base/bytes.h"
#include "base/files.h"
#include "base/try.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeightSuffix = ".safetensors";
constexpr std::array<std::string_view, 11> kForeignSuffixes = {
    ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".pkl", ".pickle"};
constexpr std::array<std::string_view, 3> kStatePrefixes = {"optimizer", "scheduler", "rng_state"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool is_foreign(const std::string& lower_name) {
  return std::ranges::any_of(kForeignSuffixes,
                             [&](std::string_view s) { return lower_name.ends_with(s); });
}

// State that a trainer needs to resume and a model does not. Their .json are configuration of the
// model (a diffusion model's noise scheduler, say).
bool is_training_state(const std::string& lower_name) {
  if (lower_name.ends_with(".json")) return false;
  return std::ranges::any_of(kStatePrefixes,
                             [&](std::string_view p) { return lower_name.starts_with(p); });
}

class Lister {
 public:
  explicit Lister(const fs::path& root) : root_(root) {}

  // Lists root_ / `relative`, which is `depth` folders below root_.
  Status visit(const std::string& relative, int depth);

  FolderListing take() &&;

 private:
  Status visit_entry(const fs::directory_entry& entry, const std::string& relative, int depth);
  Status add_file(const std::string& path, const std::string& name, uint64_t size_bytes, int depth);
  void skip(std::string_view path, std::string_view reason) {
    listing_.skipped.push_back(std::string(path) + " (" + std::string(reason) + ")");
  }

  fs::path root_;
  size_t entries_ = 0;
  FolderListing listing_;
};

Status Lister::visit(const std::string& relative, int depth) {
  const fs::path folder = root_ / relative;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (++entries_ > kMaxFolderEntries) {
      return Error{Code::kUnsupported, "'" + root_.string() + "' holds more than " +
                                           std::to_string(kMaxFolderEntries) +
                                           " files; name a folder that holds only the model"};
    }
    SILT_TRY(visit_entry(*at, relative, depth));
  }
  if (error) return os_error(error.value(), "list folder", folder);
  return {};
}

Status Lister::visit_entry(const fs::directory_entry& entry, const std::string& relative,
                           int depth) {
  const std::string name = entry.path().filename().string();
  const std::string path = relative.empty() ? name : relative + "/" + name;
  if (name == ".siltstone") return {};
  if (!is_clean_component(name)) {
    skip(quote(path), "its name has control characters or is not valid UTF-8");
    return {};
  }
  if (name.starts_with('.')) {
    skip(path, "hidden");
    return {};
  }
  std::error_code error;
  const bool link = entry.is_symlink(error);
  const fs::file_status status = entry.status(error);
  if (status.type() == fs::file_type::directory) {
    if (link) {
      skip(path, "a symbolic link to a folder");
    } else if (depth == kMaxFolderDepth) {
      skip(path, "more than " + std::to_string(kMaxFolderDepth) + " folders deep");
    } else {
      return visit(path, depth + 1);
    }
    return {};
  }
  if (status.type() == fs::file_type::not_found) {
    if (depth == 0 && name.ends_with(kWeightSuffix)) {
      return Error{Code::kNotFound, "'" + entry.path().string() +
                                        "' is a symbolic link to a file that does not exist; "
                                        "download the model again"};
    }
    skip(path, "a symbolic link to nothing");
    return {};
  }
  if (status.type() != fs::file_type::regular) {
    skip(path, "not a regular file");
    return {};
  }
  SILT_ASSIGN(const FileStat stat, stat_file(entry.path()));
  return add_file(path, name, stat.size_bytes, depth);
}

Status Lister::add_file(const std::string& path, const std::string& name, uint64_t size_bytes,
                        int depth) {
  const std::string lower_name = lower(name);
  if (is_training_state(lower_name)) {
    skip(path, "training state");
  } else if (depth == 0 && name.ends_with(kWeightSuffix)) {
    listing_.weights.push_back(path);
  } else if (is_foreign(lower_name)) {
    skip(path, "weights or data in another format");
    listing_.foreign.push_back(path);
  } else if (size_bytes > kMaxCompanionBytes) {
    if (depth == 0 && name.ends_with(kIndexSuffix)) {
      return Error{Code::kUnsupported, "the index '" + (root_ / path).string() + "' has " +
                                           std::to_string(size_bytes) + " bytes, at most " +
                                           std::to_string(kMaxCompanionBytes) + " are read"};
    }
    skip(path, format_bytes(size_bytes) + ", companions have at most " +
                   format_bytes(kMaxCompanionBytes));
  } else if (listing_.companions.size() == kMaxCompanions) {
    return Error{Code::kUnsupported, "'" + root_.string() + "' holds more than " +
                                         std::to_string(kMaxCompanions) +
                                         " files beside the weights; name a folder that holds only "
                                         "the model"};
  } else {
    listing_.companions.push_back({path, size_bytes});
  }
  return {};
}

FolderListing Lister::take() && {
  std::ranges::sort(listing_.weights);
  std::ranges::sort(listing_.companions, {}, &CompanionFile::path);
  std::ranges::sort(listing_.skipped);
  std::ranges::sort(listing_.foreign);
  return std::move(listing_);
}

}  // namespace

Result<FolderListing> list_folder(const fs::path& folder) {
  Lister lister(folder);
  SILT_TRY(lister.visit("", 0));
  return std::move(lister).take();
}

}  // namespace siltstone
