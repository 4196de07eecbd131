// slime's disk deltas: weight_vNNNNNN/ is a model folder, or holds for each changed tensor one zstd
// frame over its bytes: new XOR old, or what to overwrite and where. A folder whose index names no
// delta_encoding is a whole model. The frames' files say what the new tensor's digest is.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "base/parallel.h"
#include "base/try.h"
#include "interchange/foreign_files.h"
#include "interchange/slime.h"
#include "interchange/source.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
// Beyond what any compressor makes of the worst delta of a tensor: 5 bytes for each of its own.
constexpr uint64_t kMaxFrameRatio = 6;
constexpr uint64_t kMinFrameBytes = 1'024;

using Digest = std::string (*)(ByteSpan);

// What the index of a delta says.
struct Index {
  uint64_t version = 0;
  uint64_t base_version = 0;
  std::string encoding;
  Digest digest = nullptr;  // null: of a kind that is not computed
  std::string digest_kind;
  std::string root;  // of our exports; else empty
  std::map<std::string, std::string> weight_map;
};

Result<uint64_t> json_number(const Json& metadata, const char* key) {
  SILT_ASSIGN(const std::string text, json_string(metadata, key));
  if (const std::optional<uint64_t> number = parse_number(text)) return *number;
  return Error{Code::kCorrupt,
               std::string("'") + key + "' is " + quote(text) + ", expected a decimal number"};
}

// Whether the index is a delta's. Its metadata may be missing or anything in a whole model.
bool names_encoding(const Json& index) {
  const auto metadata = index.find("metadata");
  return index.is_object() && metadata != index.end() && metadata->is_object() &&
         metadata->contains("delta_encoding");
}

Status parse_metadata(const Json& metadata, bool unchecked, Index* out) {
  SILT_ASSIGN(out->version, json_number(metadata, "version"));
  SILT_ASSIGN(out->base_version, json_number(metadata, "base_version"));
  SILT_ASSIGN(out->encoding, json_string(metadata, "delta_encoding"));
  SILT_ASSIGN(const std::string compression, json_string(metadata, "compression_format"));
  SILT_ASSIGN(out->digest_kind, json_string(metadata, "checksum_format"));
  if (out->encoding != kSlimeXor && out->encoding != kSlimeOverwrite) {
    return Error{Code::kUnsupported,
                 "'delta_encoding' is " + quote(out->encoding) + ", expected 'xor' or 'overwrite'"};
  }
  if (compression != "zstd") {
    return Error{Code::kUnsupported,
                 "'compression_format' is " + quote(compression) + ", expected 'zstd'"};
  }
  if (out->digest_kind == "xxh3-128") out->digest = xxh3_128_hex;
  if (out->digest_kind == "adler32") out->digest = adler32_hex;
  if (out->digest == nullptr && !unchecked) {
    return Error{Code::kUnsupported,
                 "the tensors' digests are " + quote(out->digest_kind) +
                     ", which this program does not compute, so a damaged delta would not be "
                     "noticed; --unchecked imports without them"};
  }
  if (metadata.contains(kRootKey)) {
    SILT_ASSIGN(out->root, json_string(metadata, std::string(kRootKey).c_str()));
  }
  return {};
}

Result<Index> parse_index(const Json& json, bool unchecked) {
  Index index;
  SILT_ASSIGN(const Json* metadata, json_object(json, "metadata"));
  SILT_TRY(parse_metadata(*metadata, unchecked, &index));
  SILT_ASSIGN(const Json* weight_map, json_object(json, "weight_map"));
  for (const auto& [tensor, file] : weight_map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : std::string();
    if (!is_clean_component(name) || !name.ends_with(".safetensors")) {
      return Error{Code::kCorrupt, "the index puts tensor " + quote(tensor) + " into " +
                                       (file.is_string() ? quote(name) : "no text") +
                                       "; expected the name of a .safetensors file beside it"};
    }
    index.weight_map.emplace(tensor, name);
  }
  return index;
}

// A changed tensor: where its frame lies, and what its digest will be.
struct Frame {
  size_t tensor = 0;
  const Checkpoint* file = nullptr;
  size_t index = 0;  // in `file`
  std::string digest;
};

Status apply_xor(ByteSpan frame, MutByteSpan tensor) {
  FrameReader reader(frame);
  std::vector<std::byte> block(std::min<uint64_t>(kBlockBytes, tensor.size()));
  for (uint64_t at = 0; at < tensor.size(); at += block.size()) {
    const size_t length = std::min<uint64_t>(block.size(), tensor.size() - at);
    SILT_TRY(reader.read(MutByteSpan(block).first(length)));
    for (size_t i = 0; i < length; ++i) tensor[at + i] ^= block[i];
  }
  return reader.finish();
}

// The frame is read twice at once, positions here and bytes there: nothing is held whole, whatever
// count it claims.
Status apply_overwrite(ByteSpan frame, MutByteSpan tensor) {
  FrameReader positions(frame);
  FrameReader bytes(frame);
  std::array<std::byte, 4> word;
  SILT_TRY(positions.read(word));
  const uint64_t count = load_le<uint32_t>(word.data());
  if (count > tensor.size()) {
    return Error{Code::kCorrupt, std::to_string(count) + " positions, but the tensor has " +
                                     std::to_string(tensor.size()) + " bytes"};
  }
  SILT_TRY(bytes.skip(4 + 4 * count));
  constexpr uint64_t kBatch = 16'384;
  std::vector<std::byte> at(4 * std::min(kBatch, count));
  std::vector<std::byte> values(std::min(kBatch, count));
  uint64_t next = 0;  // the lowest position that may follow
  for (uint64_t done = 0; done < count; done += kBatch) {
    const uint64_t batch = std::min(kBatch, count - done);
    SILT_TRY(positions.read(MutByteSpan(at).first(4 * batch)));
    SILT_TRY(bytes.read(MutByteSpan(values).first(batch)));
    for (uint64_t i = 0; i < batch; ++i) {
      const uint64_t position = load_le<uint32_t>(at.data() + 4 * i);
      if (position < next || position >= tensor.size()) {
        return Error{Code::kCorrupt,
                     "byte position " + std::to_string(position) +
                         (position < next ? " does not ascend" : " lies outside the tensor")};
      }
      tensor[position] = values[i];
      next = position + 1;
    }
  }
  return bytes.finish();
}

Status check_frame(const TensorInfo& stored, const TensorInfo& tensor) {
  if (stored.dtype != DType::kU8 || stored.shape.size() != 1) {
    return Error{Code::kCorrupt, "it is stored as " + std::string(dtype_info(stored.dtype).name) +
                                     " " + show_shape(stored.shape) + ", expected a list of U8"};
  }
  if (stored.size_bytes / kMaxFrameRatio <= tensor.size_bytes + kMinFrameBytes) return {};
  return Error{Code::kCorrupt, "its frame has " + std::to_string(stored.size_bytes) +
                                   " bytes, the tensor only " + std::to_string(tensor.size_bytes)};
}

class SlimeSource final : public Source {
 public:
  SlimeSource(fs::path folder, const SourceOptions& options)
      : folder_(std::move(folder)), options_(options) {}

  Status list();

  const std::vector<uint64_t>& numbers() const override { return numbers_; }
  std::string name(uint64_t number) const override { return slime_name(number); }
  std::string pending() const override { return pending_; }
  Result<bool> is_full(uint64_t number) const override;
  Status read(uint64_t number, std::unique_ptr<ModelState>* state) const override;
  Status apply(uint64_t number, uint64_t before, ModelState* state) const override;

 private:
  // Why the version's writer is not done; empty if it is.
  Result<std::string> unfinished(uint64_t number) const;
  Result<std::vector<Frame>> open_frames(const fs::path& folder, const Index& index,
                                         const ModelState& state,
                                         std::vector<ForeignFile>* files) const;
  Status apply_frame(const Frame& frame, const Index& index, ModelState* state) const;

  fs::path folder_;
  SourceOptions options_;
  std::vector<uint64_t> numbers_;
  std::string pending_;
};

Result<std::string> SlimeSource::unfinished(uint64_t number) const {
  SILT_ASSIGN(const std::vector<std::string> names, list_names(folder_ / name(number)));
  bool has_index = false;
  bool has_model = false;
  for (const std::string& file : names) {
    if (file.ends_with(".tmp")) return quote(file) + " is being written";
    has_index |= file == kSlimeIndex;
    has_model |= file == "model.safetensors";
  }
  if (has_index || has_model) return std::string();
  return "it has no '" + std::string(kSlimeIndex) + "' yet";
}

Status SlimeSource::list() {
  SILT_ASSIGN(const std::vector<std::string> names, list_names(folder_));
  for (const std::string& file : names) {
    std::error_code ignored;
    const std::optional<uint64_t> number = number_in(file, kSlimePrefix, "");
    if (number && fs::is_directory(folder_ / file, ignored)) numbers_.push_back(*number);
  }
  std::ranges::sort(numbers_);
  if (numbers_.empty()) return {};
  SILT_ASSIGN(const std::string why, unfinished(numbers_.back()));
  if (why.empty()) return {};
  pending_ = name(numbers_.back()) + ": " + why;
  numbers_.pop_back();
  return {};
}

Result<bool> SlimeSource::is_full(uint64_t number) const {
  const fs::path path = folder_ / name(number) / kSlimeIndex;
  Result<Json> index = read_json_file(path);
  if (index) return !names_encoding(*index);
  if (index.error().code != Code::kNotFound) return std::move(index).error();
  SILT_ASSIGN(const std::string why, unfinished(number));
  if (why.empty()) return true;
  return Error{Code::kCorrupt, name(number) + " was never finished: " + why};
}

Status SlimeSource::read(uint64_t number, std::unique_ptr<ModelState>* state) const {
  const fs::path folder = folder_ / name(number);
  SILT_ASSIGN(const std::string why, unfinished(number));
  if (!why.empty()) return Error{Code::kCorrupt, "it was never finished: " + why};
  SILT_ASSIGN(const std::unique_ptr<Checkpoint> model, open_checkpoint(folder));
  SILT_ASSIGN(*state, ModelState::read(*model, options_.threads));
  Result<Json> index = read_json_file(folder / kSlimeIndex);
  if (!index || !index->is_object()) return {};
  const auto metadata = index->find("metadata");
  if (metadata == index->end() || !metadata->contains(kRootKey)) return {};
  SILT_ASSIGN(const std::string root, json_string(*metadata, std::string(kRootKey).c_str()));
  return prove_root(**state, root, options_.threads);
}

// Every frame is named by the index, and every name of the index has its frame.
Result<std::vector<Frame>> SlimeSource::open_frames(const fs::path& folder, const Index& index,
                                                    const ModelState& state,
                                                    std::vector<ForeignFile>* files) const {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index.weight_map) names.insert(file);
  SILT_ASSIGN(const std::vector<std::string> there, list_names(folder));
  for (const std::string& file : there) {
    if (!file.ends_with(".safetensors") || names.contains(file)) continue;
    return Error{Code::kCorrupt, "the index does not name the file " + quote(file)};
  }
  std::vector<Frame> frames;
  for (const std::string& file : names) {
    SILT_ASSIGN(ForeignFile open, open_foreign(folder / file));
    const std::span<const TensorInfo> tensors = open.checkpoint->tensors();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::string& tensor = tensors[i].name;
      const auto named = index.weight_map.find(tensor);
      if (named == index.weight_map.end() || named->second != file) {
        return Error{Code::kCorrupt,
                     quote(file) + " holds tensor " + quote(tensor) + ", against the index"};
      }
      const size_t at = state.find(tensor);
      if (at == state.tensors().size()) {
        return Error{Code::kMismatch,
                     "tensor " + quote(tensor) + " is not in the version that the delta builds on"};
      }
      SILT_TRY(check_frame(tensors[i], state.tensors()[at]).in("tensor " + quote(tensor)));
      const auto digest = open.metadata.find(tensor);
      if (digest == open.metadata.end() && index.digest != nullptr)
        return Error{Code::kCorrupt, "there is no digest of tensor " + quote(tensor)};
      frames.push_back({at, open.checkpoint.get(), i,
                        digest == open.metadata.end() ? std::string() : digest->second});
    }
    files->push_back(std::move(open));
  }
  if (frames.size() == index.weight_map.size()) return frames;
  return Error{Code::kCorrupt, "the index names " + std::to_string(index.weight_map.size()) +
                                   " tensors, the files hold " + std::to_string(frames.size())};
}

Status SlimeSource::apply_frame(const Frame& frame, const Index& index, ModelState* state) const {
  SILT_ASSIGN(const std::vector<std::byte> bytes, read_tensor(*frame.file, frame.index));
  const MutByteSpan tensor = state->bytes(frame.tensor);
  SILT_TRY(index.encoding == kSlimeXor ? apply_xor(bytes, tensor) : apply_overwrite(bytes, tensor));
  if (index.digest == nullptr) return {};
  const std::string found = index.digest(tensor);
  if (found == frame.digest) return {};
  return Error{Code::kCorrupt, "its " + index.digest_kind + " is " + found +
                                   " after the delta, expected " + quote(frame.digest)};
}

Status SlimeSource::apply(uint64_t number, uint64_t before, ModelState* state) const {
  const fs::path folder = folder_ / name(number);
  SILT_ASSIGN(const Json json, read_json_file(folder / kSlimeIndex));
  SILT_ASSIGN(const Index index, parse_index(json, options_.unchecked));
  if (index.version != number) {
    return Error{Code::kCorrupt, "its index is of version " + std::to_string(index.version)};
  }
  if (index.base_version != before) {
    return Error{Code::kMismatch, "it builds on version " + std::to_string(index.base_version) +
                                      ", but version " + std::to_string(before) +
                                      " comes before it"};
  }
  std::vector<ForeignFile> files;
  SILT_ASSIGN(const std::vector<Frame> frames, open_frames(folder, index, *state, &files));
  SILT_TRY(parallel_for(frames.size(), options_.threads, [&](uint64_t i, unsigned) {
    return apply_frame(frames[i], index, state)
        .in("tensor " + quote(state->tensors()[frames[i].tensor].name));
  }));
  for (const ForeignFile& file : files) SILT_TRY(file.checkpoint->check_unchanged());
  return index.root.empty() ? Status() : prove_root(*state, index.root, options_.threads);
}

}  // namespace

bool is_slime(const fs::path& folder) {
  const Result<std::vector<std::string>> names = list_names(folder);
  return names && std::ranges::any_of(*names, [](const std::string& name) {
           return number_in(name, kSlimePrefix, "").has_value();
         });
}

Result<std::unique_ptr<Source>> open_slime(const fs::path& folder, const SourceOptions& options) {
  auto source = std::make_unique<SlimeSource>(folder, options);
  SILT_TRY(source->list());
  return std::unique_ptr<Source>(std::move(source));
}

}  // namespace siltstone
