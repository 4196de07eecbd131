#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/json.h"
#include "base/parallel.h"
#include "base/try.h"
#include "interchange/foreign_files.h"
#include "interchange/sink.h"
#include "interchange/slime.h"
#include "repo/weight_files.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

// The change of one tensor as it will be written; no frame: it did not change.
struct Change {
  std::vector<std::byte> frame;
  std::string digest;
  uint64_t count = 0;  // bytes
};

// Leaves `old` as `next`.
Result<std::vector<std::byte>> xor_frame(ByteSpan next, MutByteSpan old, uint64_t* count) {
  uint64_t changed = 0;
  for (size_t i = 0; i < next.size(); ++i) {
    old[i] ^= next[i];
    changed += old[i] != std::byte{0} ? 1 : 0;
  }
  *count = changed;
  SILT_ASSIGN(std::vector<std::byte> frame, compress_frame(old));
  std::memcpy(old.data(), next.data(), next.size());
  return frame;
}

Result<std::vector<std::byte>> overwrite_frame(ByteSpan next, MutByteSpan old, uint64_t* count) {
  ChangeList list(1);
  list.append_refresh(next, old);
  *count = list.changed();
  std::vector<std::byte> plain(4 + 5 * *count);
  std::byte* to = plain.data();
  const auto put = [&to](uint64_t value) {
    store_le(to, static_cast<uint32_t>(value));
    to += 4;
  };
  put(*count);
  each_position(list, put);
  std::ranges::copy(list.words(), to);
  return compress_frame(plain);
}

class SlimeSink final : public Sink {
 public:
  SlimeSink(Repository& repository, fs::path folder, const ExportOptions& options, bool overwrite)
      : repository_(repository),
        folder_(std::move(folder)),
        options_(options),
        overwrite_(overwrite) {}

  Result<std::optional<std::string>> root_of(uint64_t number) const override;
  Status write_full(const Version& version, const StateOf& state, ExportedVersion* out) override;
  Result<bool> write_delta(const Version& version, const Version& before, ModelState* old,
                           const ModelState& next, ExportedVersion* out) override;

 private:
  Result<bool> find_changes(ModelState* old, const ModelState& next,
                            std::vector<Change>* changes) const;
  static Json note(const Version& version) {
    return {{"version", six_digits(version.id.seq)},
            {std::string(kVersionKey), version.id.name()},
            {std::string(kRootKey), version.root}};
  }

  Repository& repository_;
  fs::path folder_;
  const ExportOptions& options_;
  bool overwrite_;
};

Result<std::optional<std::string>> SlimeSink::root_of(uint64_t number) const {
  const fs::path folder = folder_ / slime_name(number);
  std::error_code error;
  if (fs::symlink_status(folder, error).type() == fs::file_type::not_found)
    return std::optional<std::string>();
  const Result<Json> index = read_json_file(folder / kSlimeIndex);
  if (!index && index.error().code == Code::kNotFound) return std::optional<std::string>("");
  if (!index) return Error(index.error());
  const Result<const Json*> metadata = json_object(*index, "metadata");
  if (!metadata) return std::optional<std::string>("");
  Result<std::string> root = json_string(**metadata, std::string(kRootKey).c_str());
  return std::optional(root ? *root : std::string());
}

// The checkout's files, and an index of ours in place of the one they may have.
Status SlimeSink::write_full(const Version& version, const StateOf& /*state*/,
                             ExportedVersion* out) {
  out->full = true;
  out->changed_elements = 0;
  out->path = slime_name(version.id.seq);
  const Building building(folder_ / out->path);
  CheckoutOptions checkout;
  checkout.threads = options_.threads;
  checkout.memory_bytes = options_.memory_bytes;
  checkout.progress = options_.progress;
  SILT_ASSIGN(const CheckoutReport written,
              repository_.checkout(version, building.path(), checkout));
  SILT_ASSIGN(const std::unique_ptr<Checkpoint> model, open_checkpoint(building.path()));
  Json metadata = note(version);
  Json weight_map = Json::object();
  uint64_t total = 0;
  for (const WeightFile& file : model->files()) {
    for (const WeightFile::Entry& entry : file.entries) {
      const TensorInfo& tensor = model->tensors()[entry.tensor];
      weight_map[tensor.name] = file.path;
      total += tensor.size_bytes;
    }
  }
  metadata["total_size"] = total;
  const std::string text = Json{{"metadata", metadata}, {"weight_map", weight_map}}.dump(2);
  SILT_TRY(replace_file(building.path() / kSlimeIndex, as_bytes(text)));
  out->bytes_written = written.bytes_written + text.size();
  return install_new(building.path(), folder_ / out->path);
}

Result<bool> SlimeSink::find_changes(ModelState* old, const ModelState& next,
                                     std::vector<Change>* changes) const {
  const std::span<const TensorInfo> tensors = next.tensors();
  std::atomic<bool> expressible = true;
  SILT_TRY(parallel_for(tensors.size(), options_.threads, [&](uint64_t i, unsigned) -> Status {
    const ByteSpan bytes = next.resident(i);
    if (bytes.empty() || std::memcmp(bytes.data(), old->bytes(i).data(), bytes.size()) == 0)
      return {};
    Change& change = (*changes)[i];
    // Positions and their count are 32 bits wide.
    if (overwrite_ && bytes.size() > UINT32_MAX) {
      expressible = false;
      return {};
    }
    SILT_ASSIGN(change.frame, overwrite_ ? overwrite_frame(bytes, old->bytes(i), &change.count)
                                         : xor_frame(bytes, old->bytes(i), &change.count));
    change.digest = xxh3_128_hex(bytes);
    return {};
  }));
  return expressible.load();
}

Result<bool> SlimeSink::write_delta(const Version& version, const Version& before, ModelState* old,
                                    const ModelState& next, ExportedVersion* out) {
  static constexpr const char* kFile = "model-00000-of-00001.safetensors";
  std::vector<Change> changes(next.tensors().size());
  SILT_ASSIGN(const bool expressible, find_changes(old, next, &changes));
  if (!expressible) return false;
  *out = {version, false, 0, 0, slime_name(version.id.seq)};
  std::vector<Piece> pieces;
  std::vector<std::pair<std::string, std::string>> digests;
  Json weight_map = Json::object();
  for (size_t i = 0; i < changes.size(); ++i) {
    const Change& change = changes[i];
    if (change.count == 0) continue;
    const std::string& name = next.tensors()[i].name;
    const auto size = static_cast<int64_t>(change.frame.size());
    pieces.push_back({{name, DType::kU8, {size}, change.frame.size()}, change.frame});
    digests.emplace_back(name, change.digest);
    weight_map[name] = kFile;
    out->changed_elements += change.count;
  }
  const Building building(folder_ / out->path);
  SILT_TRY(make_directories(building.path()));
  if (!pieces.empty()) {
    SILT_ASSIGN(out->bytes_written,
                write_safetensors(building.path() / kFile, std::move(pieces), digests));
  }
  Json metadata = note(version);
  metadata["base_version"] = six_digits(before.id.seq);
  metadata["delta_encoding"] = overwrite_ ? kSlimeOverwrite : kSlimeXor;
  metadata["compression_format"] = "zstd";
  metadata["checksum_format"] = "xxh3-128";
  const std::string text = Json{{"metadata", metadata}, {"weight_map", weight_map}}.dump();
  SILT_TRY(replace_file(building.path() / kSlimeIndex, as_bytes(text)));
  out->bytes_written += text.size();
  SILT_TRY(install_new(building.path(), folder_ / out->path));
  return true;
}

}  // namespace

Result<std::unique_ptr<Sink>> make_slime_sink(Repository& repository, const fs::path& folder,
                                              const ExportOptions& options) {
  const bool overwrite = options.encoding == kSlimeOverwrite;
  if (!overwrite && !options.encoding.empty() && options.encoding != kSlimeXor) {
    return Error{Code::kInvalidArgument,
                 "slime has no encoding '" + options.encoding + "'; there are xor and overwrite"};
  }
  return std::unique_ptr<Sink>(std::make_unique<SlimeSink>(repository, folder, options, overwrite));
}

}  // namespace siltstone
