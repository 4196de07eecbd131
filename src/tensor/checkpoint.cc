#include "siltstone/checkpoint.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/files.h"
#include "base/try.h"
#include "tensor/folder.h"
#include "tensor/range.h"
#include "tensor/safetensors.h"
#include "tensor/shard_index.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPlainFile = "model.safetensors";
constexpr std::string_view kPlainIndex = "model.safetensors.index.json";

// One .safetensors file, open, with its header checked against its size.
struct OpenFile {
  File file;
  FileStat stat;
  WeightFile weights;  // without entries
  std::vector<SafetensorsEntry> entries;
  uint64_t data_start_bytes() const { return kLengthFieldBytes + weights.header.size(); }
};

Result<OpenFile> open_weight_file(const fs::path& root, const std::string& name) {
  OpenFile out;
  SILT_ASSIGN(out.file, File::open_read(root / name));
  SILT_ASSIGN(out.stat, out.file.stat());
  out.weights.path = name;
  out.weights.size_bytes = out.stat.size_bytes;
  const std::string where = "'" + (root / name).string() + "'";

  std::vector<std::byte> field(std::min<uint64_t>(kLengthFieldBytes, out.stat.size_bytes));
  SILT_TRY(out.file.read_at(0, field));
  SILT_ASSIGN(const uint64_t header_bytes,
              parse_length_field(field, out.stat.size_bytes).in(where));
  out.weights.header.resize(header_bytes);
  SILT_TRY(
      out.file.read_at(kLengthFieldBytes, std::as_writable_bytes(std::span(out.weights.header))));
  SILT_ASSIGN(SafetensorsHeader header,
              parse_safetensors_header(out.weights.header,
                                       out.stat.size_bytes - kLengthFieldBytes - header_bytes)
                  .in(where));
  out.entries = std::move(header.entries);
  return out;
}

class FileCheckpoint final : public Checkpoint {
 public:
  FileCheckpoint(fs::path root, FolderListing listing)
      : root_(std::move(root)),
        companions_(std::move(listing.companions)),
        skipped_(std::move(listing.skipped)) {}

  // Takes the files in; the tensors of all of them become one list.
  Status add(std::vector<OpenFile> files);

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  Status read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const override;
  std::span<const std::byte> resident(size_t /*index*/) const override { return {}; }
  std::span<const WeightFile> files() const override { return weights_; }
  std::span<const CompanionFile> companions() const override { return companions_; }
  Result<std::string> read_companion(size_t index) const override;
  std::span<const std::string> skipped() const override { return skipped_; }
  fs::path root() const override { return root_; }
  Status check_unchanged() const override;

 private:
  struct Source {
    File file;
    FileStat stat;
  };
  struct Place {
    size_t file;
    uint64_t offset_bytes;  // from the start of the file
  };

  fs::path root_;
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;  // parallel to tensors_
  std::vector<Source> sources_;
  std::vector<WeightFile> weights_;  // parallel to sources_
  std::vector<CompanionFile> companions_;
  std::vector<std::string> skipped_;
};

Status FileCheckpoint::add(std::vector<OpenFile> files) {
  struct Ref {
    size_t file;
    size_t entry;
  };
  std::vector<Ref> refs;
  for (size_t file = 0; file < files.size(); ++file) {
    for (size_t entry = 0; entry < files[file].entries.size(); ++entry) {
      refs.push_back({file, entry});
    }
    files[file].weights.entries.resize(files[file].entries.size());
  }
  if (refs.size() > kMaxTensors) {
    return Error{Code::kUnsupported, "'" + root_.string() + "' holds " +
                                         std::to_string(refs.size()) + " tensors, at most " +
                                         std::to_string(kMaxTensors) + " are allowed"};
  }
  const auto entry_of = [&](const Ref& ref) -> SafetensorsEntry& {
    return files[ref.file].entries[ref.entry];
  };
  std::ranges::sort(refs, [&](const Ref& a, const Ref& b) {
    const int order = entry_of(a).info.name.compare(entry_of(b).info.name);
    return order != 0 ? order < 0 : a.file < b.file;
  });
  for (const Ref& ref : refs) {
    SafetensorsEntry& entry = entry_of(ref);
    if (!tensors_.empty() && tensors_.back().name == entry.info.name) {
      return Error{Code::kCorrupt, "tensor " + quote(entry.info.name) + " stands in both " +
                                       quote(files[places_.back().file].weights.path) + " and " +
                                       quote(files[ref.file].weights.path) + " of '" +
                                       root_.string() +
                                       "'; a model has each tensor once: name one file alone"};
    }
    const uint64_t offset = files[ref.file].data_start_bytes() + entry.offset_bytes;
    files[ref.file].weights.entries[ref.entry] = {tensors_.size(), offset};
    places_.push_back({ref.file, offset});
    tensors_.push_back(std::move(entry.info));
  }
  for (OpenFile& file : files) {
    sources_.push_back({std::move(file.file), file.stat});
    weights_.push_back(std::move(file.weights));
  }
  return {};
}

Status FileCheckpoint::read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const {
  SILT_TRY(check_range(tensors_[index], offset_bytes, out.size()));
  const Place& place = places_[index];
  const Source& source = sources_[place.file];
  SILT_TRY(source.file.read_at(place.offset_bytes + offset_bytes, out));
  SILT_ASSIGN(const FileStat now, source.file.stat());
  if (now.size_bytes == source.stat.size_bytes) return {};
  return Error{Code::kCorrupt, "'" + source.file.path().string() + "' has " +
                                   std::to_string(now.size_bytes) + " bytes, it had " +
                                   std::to_string(source.stat.size_bytes) +
                                   " when it was opened: it is being rewritten"};
}

Result<std::string> FileCheckpoint::read_companion(size_t index) const {
  const CompanionFile& companion = companions_[index];
  SILT_ASSIGN(std::string content, read_file(root_ / companion.path, kMaxCompanionBytes));
  if (content.size() == companion.size_bytes) return content;
  return Error{Code::kCorrupt, "'" + (root_ / companion.path).string() + "' has " +
                                   std::to_string(content.size()) + " bytes, it had " +
                                   std::to_string(companion.size_bytes) +
                                   " when the folder was opened: it is being rewritten"};
}

Status FileCheckpoint::check_unchanged() const {
  for (const Source& source : sources_) {
    SILT_ASSIGN(const FileStat now, source.file.stat());
    if (now.size_bytes == source.stat.size_bytes && now.mtime_ns == source.stat.mtime_ns) continue;
    return Error{Code::kConflict, "'" + source.file.path().string() +
                                      "' was written to while it was being read; run the command "
                                      "again when the writer is done"};
  }
  return {};
}

// The index that governs the folder; empty if there is none.
Result<std::string> choose_index(const fs::path& folder, const FolderListing& listing) {
  std::vector<std::string> found;
  for (const CompanionFile& companion : listing.companions) {
    const bool inside = companion.path.find('/') != std::string::npos;
    if (!inside && companion.path.ends_with(kIndexSuffix)) found.push_back(companion.path);
  }
  if (found.empty()) return std::string();
  if (std::ranges::find(found, kPlainIndex) != found.end()) return std::string(kPlainIndex);
  if (found.size() == 1) return found.front();
  return Error{Code::kUnsupported, "'" + folder.string() + "' has several indexes, " +
                                       quote(found[0]) + " and " + quote(found[1]) + ", and no '" +
                                       std::string(kPlainIndex) + "'; leave the one that counts"};
}

Error no_weights(const fs::path& folder, const FolderListing& listing) {
  const std::string none = "'" + folder.string() + "' holds no .safetensors file";
  if (!listing.foreign.empty()) {
    return {Code::kUnsupported, none + ", only weights in another format, such as " +
                                    quote(listing.foreign.front()) +
                                    "; save the model with safe_serialization=True"};
  }
  for (const CompanionFile& companion : listing.companions) {
    if (!companion.path.ends_with(".safetensors")) continue;
    return {Code::kNotFound, none + "; there is " + quote(companion.path) + ": name its folder"};
  }
  return {Code::kNotFound, none + "; name a model folder or a .safetensors file"};
}

// Names of the files that the index spreads the tensors over, sorted. The folder's other weights
// are noted as skipped.
Result<std::vector<std::string>> indexed_files(const fs::path& folder,
                                               const std::string& index_name,
                                               const std::map<std::string, std::string>& weight_map,
                                               FolderListing& listing) {
  std::set<std::string> named;
  for (const auto& entry : weight_map) named.insert(entry.second);
  for (const std::string& name : named) {
    if (std::ranges::binary_search(listing.weights, name)) continue;
    return Error{Code::kNotFound, quote(index_name) + " names " + quote(name) +
                                      ", which is not in '" + folder.string() +
                                      "'; download the model again"};
  }
  for (const std::string& name : listing.weights) {
    if (named.contains(name)) continue;
    if (name == kPlainFile) {
      return Error{Code::kUnsupported,
                   "'" + folder.string() + "' has both '" + name + "' and " + quote(index_name) +
                       ", which does not name it: they are two models; remove the one that is out "
                       "of date"};
    }
    std::string remark = name;
    remark.append(" (not named by ").append(index_name).append(")");
    listing.skipped.push_back(std::move(remark));
  }
  std::ranges::sort(listing.skipped);
  return std::vector<std::string>(named.begin(), named.end());
}

Result<std::unique_ptr<Checkpoint>> open_files(const fs::path& root,
                                               const std::vector<std::string>& names,
                                               FolderListing listing) {
  std::vector<OpenFile> files;
  for (const std::string& name : names) {
    SILT_ASSIGN(OpenFile file, open_weight_file(root, name));
    files.push_back(std::move(file));
  }
  auto checkpoint = std::make_unique<FileCheckpoint>(root, std::move(listing));
  SILT_TRY(checkpoint->add(std::move(files)));
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

Result<std::unique_ptr<Checkpoint>> open_folder(const fs::path& folder) {
  SILT_ASSIGN(FolderListing listing, list_folder(folder));
  SILT_ASSIGN(const std::string index_name, choose_index(folder, listing));
  if (index_name.empty()) {
    if (listing.weights.empty()) return no_weights(folder, listing);
    const std::vector<std::string> names = listing.weights;
    return open_files(folder, names, std::move(listing));
  }
  const std::string where = "'" + (folder / index_name).string() + "'";
  SILT_ASSIGN(const std::string text, read_file(folder / index_name, kMaxCompanionBytes));
  SILT_ASSIGN(const auto weight_map, parse_shard_index(text).in(where));
  SILT_ASSIGN(const auto names, indexed_files(folder, index_name, weight_map, listing));
  SILT_ASSIGN(auto checkpoint, open_files(folder, names, std::move(listing)));
  SILT_TRY(check_shard_index(weight_map, checkpoint->files(), checkpoint->tensors()).in(where));
  return checkpoint;
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_checkpoint(const fs::path& file_or_folder) {
  std::error_code error;
  const fs::file_status status = fs::status(file_or_folder, error);
  if (status.type() == fs::file_type::not_found) {
    return Error{Code::kNotFound, "there is no file or folder '" + file_or_folder.string() + "'"};
  }
  if (status.type() == fs::file_type::none) {
    return os_error(error.value(), "examine", file_or_folder);
  }
  if (status.type() == fs::file_type::directory) return open_folder(file_or_folder);

  const std::string name = file_or_folder.filename().string();
  if (status.type() != fs::file_type::regular || !name.ends_with(".safetensors")) {
    return Error{Code::kUnsupported, "'" + file_or_folder.string() +
                                         "' is neither a .safetensors file nor a model folder"};
  }
  if (!is_clean_component(name)) {
    return Error{Code::kUnsupported,
                 "the file name " + quote(name) + " has control characters or is not valid UTF-8"};
  }
  const fs::path parent = file_or_folder.parent_path();
  return open_files(parent.empty() ? fs::path(".") : parent, {name}, {});
}

}  // namespace siltstone
