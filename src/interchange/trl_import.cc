// TRL's prototype: anchors/step_NNNNNN.safetensors hold the model, deltas/step_NNNNNN.safetensors
// the changed elements as new values at flat positions. Three writers are told apart by their
// tensor names and header keys: NAME.indices and NAME.values, with and without a checksum of the
// state, and NAME.idx and NAME.val with an encoding.
#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <type_traits>

#include "base/checksum.h"
#include "base/parallel.h"
#include "base/try.h"
#include "interchange/foreign_files.h"
#include "interchange/source.h"
#include "interchange/trl.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

// How the positions of a delta are written.
enum class Positions { kAbsolute, kGaps };

struct Suffixes {
  std::string_view positions;
  std::string_view values;
};
constexpr Suffixes kLater = {".idx", ".val"};
constexpr Suffixes kEarlier = {".indices", ".values"};

// A tensor of the state and where the delta's file holds its positions and values.
struct Part {
  size_t tensor = 0;
  size_t positions = 0;
  size_t values = 0;
};

const std::string* find(const Metadata& metadata, std::string_view key) {
  const auto at = metadata.find(std::string(key));
  return at == metadata.end() ? nullptr : &at->second;
}

Error corrupt(std::string message) {
  return {Code::kCorrupt, std::move(message)};
}

Status check_number(const Metadata& metadata, std::string_view key, uint64_t expected,
                    Code code = Code::kCorrupt) {
  const std::string* value = find(metadata, key);
  if (value == nullptr || value->empty()) return {};
  if (parse_number(*value) == expected) return {};
  return Error{code, "the header's '" + std::string(key) + "' is " + quote(*value) + ", expected " +
                         std::to_string(expected)};
}

Status check_header(const Metadata& metadata, uint64_t number, bool anchor) {
  const std::string* format = find(metadata, "format");
  // Any safetensors file that stands where an anchor should is one.
  if (anchor && (format == nullptr || *format == "pt")) return {};
  if (format == nullptr || (*format != kTrlFormat && !(anchor && *format == kTrlAnchorFormat))) {
    return Error{Code::kUnsupported, "the header's 'format' is " +
                                         (format == nullptr ? "missing" : quote(*format)) +
                                         ", expected '" + std::string(kTrlFormat) + "'"};
  }
  const std::string* version = find(metadata, "version");
  if (version == nullptr || *version != "1") {
    return Error{Code::kUnsupported, "the header's 'version' is " +
                                         (version == nullptr ? "missing" : quote(*version)) +
                                         ", expected '1'"};
  }
  const std::string* sparse = find(metadata, "sparse");
  if (sparse != nullptr && *sparse != (anchor ? "False" : "True")) {
    return corrupt("the header's 'sparse' is " + quote(*sparse) + ", which does not go with " +
                   (anchor ? "an anchor" : "a delta"));
  }
  if (!anchor && find(metadata, "model_version") == nullptr)
    return corrupt("the header has no 'model_version'");
  return check_number(metadata, "model_version", number);
}

// NAME of NAME + suffix; empty if it does not end so.
std::string_view stem(std::string_view name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string_view();
}

// The parts of a delta: every tensor of the file belongs to one, none is there twice.
Result<std::vector<Part>> match(const Checkpoint& file, const Suffixes& suffixes,
                                const ModelState& state) {
  struct Found {
    std::optional<size_t> positions;
    std::optional<size_t> values;
  };
  std::map<std::string_view, Found> found;
  const std::span<const TensorInfo> tensors = file.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string_view name = tensors[i].name;
    if (const std::string_view owner = stem(name, suffixes.positions); !owner.empty()) {
      found[owner].positions = i;
    } else if (const std::string_view of = stem(name, suffixes.values); !of.empty()) {
      found[of].values = i;
    } else if (name != kTrlEmptyDelta || tensors.size() != 1) {
      return corrupt("tensor " + quote(name) + " is neither positions (" +
                     std::string(suffixes.positions) + ") nor values (" +
                     std::string(suffixes.values) + ")");
    }
  }
  std::vector<Part> parts;
  for (const auto& [name, of] : found) {
    if (!of.positions || !of.values) {
      return corrupt("tensor " + quote(name) + " has " +
                     (of.positions ? "positions without values" : "values without positions"));
    }
    const size_t tensor = state.find(name);
    if (tensor == state.tensors().size()) {
      return Error{Code::kMismatch,
                   "tensor " + quote(name) + " is not in the version that the delta builds on"};
    }
    parts.push_back({tensor, *of.positions, *of.values});
  }
  return parts;
}

Status check_part(const TensorInfo& tensor, const TensorInfo& positions, const TensorInfo& values,
                  Positions how) {
  const DType narrow = how == Positions::kGaps ? DType::kU16 : DType::kI32;
  const DType wide = how == Positions::kGaps ? DType::kU32 : DType::kI64;
  if (positions.dtype != narrow && positions.dtype != wide) {
    return corrupt("the positions are " + std::string(dtype_info(positions.dtype).name) +
                   ", expected " + std::string(dtype_info(narrow).name) + " or " +
                   std::string(dtype_info(wide).name));
  }
  if (values.dtype != tensor.dtype) {
    return Error{Code::kMismatch, "the values are " + std::string(dtype_info(values.dtype).name) +
                                      ", the tensor is " +
                                      std::string(dtype_info(tensor.dtype).name)};
  }
  const DTypeInfo& dtype = dtype_info(tensor.dtype);
  if (dtype.bits != 8 * dtype.word_bytes) {
    return Error{Code::kUnsupported,
                 "elements of " + std::string(dtype.name) + " have no bytes of their own"};
  }
  const uint64_t count = positions.size_bytes / dtype_info(positions.dtype).word_bytes;
  const uint64_t given = values.size_bytes / dtype.word_bytes;
  const uint64_t elements = tensor.size_bytes / dtype.word_bytes;
  if (positions.shape.size() != 1 || values.shape.size() != 1 || count != given) {
    return corrupt("positions " + show_shape(positions.shape) + " and values " +
                   show_shape(values.shape) + " are not lists of equal length");
  }
  if (count <= elements) return {};
  return corrupt(std::to_string(count) + " positions, but the tensor has " +
                 std::to_string(elements) + " elements");
}

// Writes the values at their positions, which must ascend and lie inside the tensor.
template <class Index>
Status scatter(ByteSpan positions, ByteSpan values, Positions how, unsigned word_bytes,
               MutByteSpan tensor) {
  const uint64_t elements = tensor.size() / word_bytes;
  const uint64_t count = positions.size() / sizeof(Index);
  uint64_t next = 0;  // the lowest position that may follow
  for (uint64_t i = 0; i < count; ++i) {
    const Index given = load_le<Index>(positions.data() + i * sizeof(Index));
    if constexpr (std::is_signed_v<Index>) {
      if (given < 0) return corrupt("position " + std::to_string(given) + " is negative");
    }
    const auto at = static_cast<uint64_t>(given) + (how == Positions::kGaps ? next : 0);
    if (at < next) {
      return corrupt("position " + std::to_string(at) + " follows " + std::to_string(next - 1) +
                     "; positions must ascend");
    }
    if (at >= elements) {
      return corrupt("position " + std::to_string(at) + " lies outside, the tensor has " +
                     std::to_string(elements) + " elements");
    }
    std::memcpy(tensor.data() + at * word_bytes, values.data() + i * word_bytes, word_bytes);
    next = at + 1;
  }
  return {};
}

Status apply_part(const Checkpoint& file, const Part& part, Positions how, ModelState* state) {
  const TensorInfo& tensor = state->tensors()[part.tensor];
  const TensorInfo& listed = file.tensors()[part.positions];
  SILT_TRY(check_part(tensor, listed, file.tensors()[part.values], how));
  SILT_ASSIGN(const std::vector<std::byte> positions, read_tensor(file, part.positions));
  SILT_ASSIGN(const std::vector<std::byte> values, read_tensor(file, part.values));
  const unsigned word_bytes = dtype_info(tensor.dtype).word_bytes;
  const MutByteSpan bytes = state->bytes(part.tensor);
  switch (listed.dtype) {
    case DType::kU16:
      return scatter<uint16_t>(positions, values, how, word_bytes, bytes);
    case DType::kU32:
      return scatter<uint32_t>(positions, values, how, word_bytes, bytes);
    case DType::kI32:
      return scatter<int32_t>(positions, values, how, word_bytes, bytes);
    default:
      return scatter<int64_t>(positions, values, how, word_bytes, bytes);
  }
}

// What the header says of the delta as a whole.
Status check_counts(const Metadata& metadata, const Checkpoint& file,
                    const std::vector<Part>& parts) {
  uint64_t changed = 0;
  for (const Part& part : parts) {
    const TensorInfo& positions = file.tensors()[part.positions];
    changed += positions.size_bytes / dtype_info(positions.dtype).word_bytes;
  }
  SILT_TRY(check_number(metadata, "num_changed_params", parts.size()));
  return check_number(metadata, "total_changed_elements", changed);
}

// The earliest writer's proof: SHA-256 over all tensors' bytes, by name.
Status check_sha256(const Metadata& metadata, const ModelState& state) {
  const std::string* expected = find(metadata, "checksum_sha256");
  if (expected == nullptr || expected->empty()) return {};
  Sha256 hash;
  for (size_t i = 0; i < state.tensors().size(); ++i) hash.update(state.resident(i));
  const std::string found = to_hex(hash.finish());
  if (found == *expected) return {};
  return corrupt("the state's SHA-256 is " + found + ", the header promises " + quote(*expected));
}

class TrlSource final : public Source {
 public:
  TrlSource(fs::path folder, const SourceOptions& options)
      : folder_(std::move(folder)), options_(options) {}

  Status list();

  const std::vector<uint64_t>& numbers() const override { return numbers_; }
  std::string name(uint64_t number) const override {
    return trl_name(number, anchors_.contains(number));
  }
  Result<bool> is_full(uint64_t number) const override { return anchors_.contains(number); }
  Status read(uint64_t number, std::unique_ptr<ModelState>* state) const override;
  Status apply(uint64_t number, uint64_t before, ModelState* state) const override;

 private:
  Result<Positions> how(const Metadata& metadata, const Suffixes& suffixes) const;
  Status prove(const Metadata& metadata, const ModelState& state) const {
    SILT_TRY(check_sha256(metadata, state));
    const std::string* root = find(metadata, kRootKey);
    return root == nullptr ? Status() : prove_root(state, *root, options_.threads);
  }

  fs::path folder_;
  SourceOptions options_;
  std::vector<uint64_t> numbers_;
  std::set<uint64_t> anchors_;
};

Status TrlSource::list() {
  std::set<uint64_t> all;
  for (const bool anchor : {false, true}) {
    SILT_ASSIGN(const std::vector<std::string> names,
                list_names(folder_ / (anchor ? kTrlAnchors : kTrlDeltas)));
    for (const std::string& name : names) {
      const std::optional<uint64_t> number = number_in(name, kTrlPrefix, kTrlSuffix);
      if (!number) continue;
      all.insert(*number);
      if (anchor) anchors_.insert(*number);
    }
  }
  numbers_.assign(all.begin(), all.end());
  return {};
}

Status TrlSource::read(uint64_t number, std::unique_ptr<ModelState>* state) const {
  SILT_ASSIGN(const ForeignFile file, open_foreign(folder_ / name(number)));
  SILT_TRY(check_header(file.metadata, number, /*anchor=*/true));
  const Checkpoint& anchor = *file.checkpoint;
  const bool same = *state != nullptr && std::ranges::equal((*state)->tensors(), anchor.tensors());
  if (same) {
    SILT_TRY((*state)->refill(anchor, options_.threads));
  } else {
    SILT_ASSIGN(std::unique_ptr<ModelState> fresh, ModelState::read(anchor, options_.threads));
    SILT_TRY(fresh->use_plain_layout());
    if (*state != nullptr) fresh->take_companions(**state);
    *state = std::move(fresh);
  }
  return prove(file.metadata, **state);
}

Result<Positions> TrlSource::how(const Metadata& metadata, const Suffixes& suffixes) const {
  const std::string* encoding = find(metadata, "encoding");
  if (suffixes.positions == kEarlier.positions) {
    if (encoding == nullptr || *encoding == kTrlRaw) return Positions::kAbsolute;
  } else if (encoding == nullptr) {
    return corrupt("the header has no 'encoding'");
  } else if (*encoding == kTrlRaw) {
    return Positions::kAbsolute;
  } else if (*encoding == kTrlGaps) {
    return Positions::kGaps;
  }
  return Error{Code::kUnsupported,
               "the positions are encoded as " + quote(*encoding) +
                   "; 'raw' and 'gap_delta' can be read (nvCOMP's stream needs its library)"};
}

Status TrlSource::apply(uint64_t number, uint64_t before, ModelState* state) const {
  SILT_ASSIGN(const ForeignFile file, open_foreign(folder_ / name(number)));
  SILT_TRY(check_header(file.metadata, number, /*anchor=*/false));
  const std::string* builds_on = find(file.metadata, "prev_model_version");
  SILT_TRY(check_number(file.metadata, "prev_model_version", before, Code::kMismatch));
  if (builds_on == nullptr && number != before + 1 && !options_.unchecked) {
    return Error{
        Code::kMismatch,
        "step " + std::to_string(before) +
            " comes before it, and the file does not say "
            "what it builds on: versions in between are missing, or nothing changed in them "
            "(--unchecked takes the latter for granted)"};
  }
  const std::span<const TensorInfo> tensors = file.checkpoint->tensors();
  // A delta in which nothing changed may have no tensor at all.
  const bool earlier = tensors.empty() ? find(file.metadata, "encoding") == nullptr
                                       : std::ranges::any_of(tensors, [](const TensorInfo& tensor) {
                                           return tensor.name.ends_with(kEarlier.positions) ||
                                                  tensor.name == kTrlEmptyDelta;
                                         });
  const Suffixes& suffixes = earlier ? kEarlier : kLater;
  SILT_ASSIGN(const Positions positions, how(file.metadata, suffixes));
  SILT_ASSIGN(const std::vector<Part> parts, match(*file.checkpoint, suffixes, *state));
  SILT_TRY(check_counts(file.metadata, *file.checkpoint, parts));
  SILT_TRY(parallel_for(parts.size(), options_.threads, [&](uint64_t i, unsigned) {
    return apply_part(*file.checkpoint, parts[i], positions, state)
        .in("tensor " + quote(state->tensors()[parts[i].tensor].name));
  }));
  SILT_TRY(file.checkpoint->check_unchanged());
  return prove(file.metadata, *state);
}

}  // namespace

std::string trl_name(uint64_t number, bool anchor) {
  return std::string(anchor ? kTrlAnchors : kTrlDeltas) + "/" + std::string(kTrlPrefix) +
         six_digits(number) + std::string(kTrlSuffix);
}

bool is_trl(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / kTrlAnchors, ignored) ||
         fs::is_directory(folder / kTrlDeltas, ignored);
}

Result<std::unique_ptr<Source>> open_trl(const fs::path& folder, const SourceOptions& options) {
  auto source = std::make_unique<TrlSource>(folder, options);
  SILT_TRY(source->list());
  return std::unique_ptr<Source>(std::move(source));
}

}  // namespace siltstone
