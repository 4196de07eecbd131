#include "tensor/safetensors.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/json.h"
#include "base/try.h"
#include "tensor/strict_sax.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

// The events of a header, in the only arrangement that is allowed.
class HeaderSax final : public StrictSax {
 public:
  bool key(string_t& key) override;
  bool string(string_t& value) override;
  bool number_unsigned(number_unsigned_t value) override;
  bool start_object(size_t elements) override;
  bool end_object() override;
  bool start_array(size_t elements) override;
  bool end_array() override;

  // After parse(): tensors in the order of the header.
  SafetensorsHeader take() && { return std::move(header_); }

 protected:
  bool unexpected(const std::string& found) override;

 private:
  enum class At { kStart, kTop, kMetadata, kMetadataEntries, kTensor, kFields };
  enum Field : size_t { kDType, kShape, kOffsets, kFieldCount };
  static constexpr std::array<std::string_view, kFieldCount> kFieldNames = {"dtype", "shape",
                                                                            "data_offsets"};

  std::string tensor() const { return "tensor " + quote(name_); }
  bool tensor_key(string_t& key);
  bool field_key(const string_t& key);
  bool finish_tensor();

  At at_ = At::kStart;
  bool in_array_ = false;
  bool metadata_seen_ = false;
  Field field_ = kDType;
  std::string name_;
  std::array<bool, kFieldCount> fields_seen_ = {};
  std::string dtype_;
  std::vector<int64_t> shape_;
  std::vector<uint64_t> offsets_;
  SafetensorsHeader header_;
};

bool HeaderSax::unexpected(const std::string& found) {
  switch (at_) {
    case At::kStart:
    case At::kTop:
      return fail("the header is " + found + "; expected an object");
    case At::kMetadata:
      return fail("'__metadata__' is " + found + "; expected an object");
    case At::kMetadataEntries:
      return fail("'__metadata__' entry " + quote(header_.metadata.back().first) + " is " + found +
                  "; expected a string");
    case At::kTensor:
      return fail(tensor() + " is " + found + "; expected an object");
    case At::kFields:
      break;
  }
  static constexpr std::array kWanted = {"a string", "an array of non-negative integers",
                                         "an array of two non-negative integers"};
  return fail(tensor() + ": '" + std::string(kFieldNames[field_]) +
              (in_array_ ? "' holds " : "' is ") + found + "; expected " + kWanted[field_]);
}

bool HeaderSax::key(string_t& key) {
  if (at_ == At::kTop) return tensor_key(key);
  if (at_ == At::kFields) return field_key(key);
  if (header_.metadata.size() == kMaxMetadataEntries) {
    return fail("'__metadata__' has more than " + std::to_string(kMaxMetadataEntries) + " entries");
  }
  header_.metadata.emplace_back(std::move(key), "");
  return true;
}

bool HeaderSax::tensor_key(string_t& key) {
  if (key == kMetadataKey) {
    if (metadata_seen_) return fail("key '__metadata__' stands twice in the header");
    metadata_seen_ = true;
    at_ = At::kMetadata;
    return true;
  }
  at_ = At::kTensor;
  name_ = std::move(key);
  if (name_.empty()) return fail("a tensor has an empty name");
  if (name_.size() > kMaxNameBytes) {
    return fail(tensor() + " has a name of " + std::to_string(name_.size()) + " bytes, at most " +
                std::to_string(kMaxNameBytes) + " are allowed");
  }
  if (!is_clean_text(name_)) return fail(tensor() + " has a control character in its name");
  return true;
}

bool HeaderSax::field_key(const string_t& key) {
  const auto* found = std::ranges::find(kFieldNames, key);
  if (found == kFieldNames.end()) {
    return fail(tensor() + " has the unknown key " + quote(key) +
                "; expected dtype, shape and data_offsets");
  }
  field_ = static_cast<Field>(found - kFieldNames.begin());
  if (fields_seen_[field_]) return fail(tensor() + ": key " + quote(key) + " stands twice");
  fields_seen_[field_] = true;
  return true;
}

bool HeaderSax::string(string_t& value) {
  if (at_ == At::kMetadataEntries) {
    header_.metadata.back().second = std::move(value);
    return true;
  }
  if (at_ != At::kFields || field_ != kDType) return StrictSax::string(value);
  dtype_ = std::move(value);
  return true;
}

bool HeaderSax::number_unsigned(number_unsigned_t value) {
  if (!in_array_) return StrictSax::number_unsigned(value);
  if (field_ == kOffsets) {
    if (offsets_.size() == 2) {
      return fail(tensor() + ": 'data_offsets' has more than two numbers");
    }
    offsets_.push_back(value);
    return true;
  }
  if (value > static_cast<uint64_t>(INT64_MAX)) {
    return fail(tensor() + ": dimension " + std::to_string(value) + " is beyond 2^63 - 1");
  }
  if (shape_.size() == kMaxRank) {
    return fail(tensor() + " has more than " + std::to_string(kMaxRank) + " dimensions");
  }
  shape_.push_back(static_cast<int64_t>(value));
  return true;
}

bool HeaderSax::start_object(size_t elements) {
  if (at_ == At::kStart) {
    at_ = At::kTop;
  } else if (at_ == At::kMetadata) {
    at_ = At::kMetadataEntries;
  } else if (at_ == At::kTensor) {
    at_ = At::kFields;
    fields_seen_ = {};
    shape_.clear();
    offsets_.clear();
  } else {
    return StrictSax::start_object(elements);
  }
  return true;
}

bool HeaderSax::end_object() {
  if (at_ == At::kFields && !finish_tensor()) return false;
  at_ = At::kTop;
  return true;
}

bool HeaderSax::start_array(size_t elements) {
  if (at_ != At::kFields || field_ == kDType || in_array_) return StrictSax::start_array(elements);
  in_array_ = true;
  return true;
}

bool HeaderSax::end_array() {
  in_array_ = false;
  return true;
}

bool HeaderSax::finish_tensor() {
  for (size_t field = 0; field < kFieldCount; ++field) {
    if (fields_seen_[field]) continue;
    return fail(tensor() + " lacks the key '" + std::string(kFieldNames[field]) + "'");
  }
  const DTypeInfo* dtype = find_dtype(dtype_);
  if (dtype == nullptr) {
    return fail(Code::kUnsupported, tensor() + " has the unknown dtype " + quote(dtype_));
  }
  if (offsets_.size() != 2) {
    return fail(tensor() + ": 'data_offsets' has " + std::to_string(offsets_.size()) +
                " numbers; expected two");
  }
  if (offsets_[0] > offsets_[1]) {
    return fail(tensor() + " begins at offset " + std::to_string(offsets_[0]) +
                ", behind its end at " + std::to_string(offsets_[1]));
  }
  const auto layout = [&] { return std::string(dtype->name) + " " + show_shape(shape_); };
  const auto size_bytes = tensor_size_bytes(dtype->dtype, shape_);
  if (!size_bytes) {
    const bool partial = dtype->bits < 8 && tensor_size_bytes(DType::kU8, shape_).has_value();
    return fail(tensor() + ": the elements of " + layout() +
                (partial ? " do not fill whole bytes" : " need more than 2^63 - 1 bytes"));
  }
  const uint64_t length = offsets_[1] - offsets_[0];
  if (*size_bytes != length) {
    return fail(tensor() + ": " + layout() + " needs " + std::to_string(*size_bytes) +
                " bytes, but its data_offsets span " + std::to_string(length));
  }
  header_.entries.push_back(
      {{std::move(name_), dtype->dtype, shape_, *size_bytes}, offsets_.front()});
  return true;
}

// The text of a key that stands twice; empty if all differ.
const std::string* find_repeated(std::vector<const std::string*> keys) {
  const auto less = [](const std::string* a, const std::string* b) { return *a < *b; };
  std::ranges::sort(keys, less);
  const auto equal = [](const std::string* a, const std::string* b) { return *a == *b; };
  const auto found = std::ranges::adjacent_find(keys, equal);
  return found == keys.end() ? nullptr : *found;
}

Status check_unique(const SafetensorsHeader& header) {
  std::vector<const std::string*> keys;
  keys.reserve(header.entries.size());
  for (const SafetensorsEntry& entry : header.entries) keys.push_back(&entry.info.name);
  if (const std::string* name = find_repeated(std::move(keys))) {
    return Error{Code::kCorrupt, "tensor " + quote(*name) + " stands twice in the header"};
  }
  keys.clear();
  for (const auto& entry : header.metadata) keys.push_back(&entry.first);
  if (const std::string* name = find_repeated(std::move(keys))) {
    return Error{Code::kCorrupt, "'__metadata__' key " + quote(*name) + " stands twice"};
  }
  return {};
}

// Sorts the entries by offset and holds that they fill the data region exactly.
Status check_layout(SafetensorsHeader& header) {
  // An empty tensor shares its offset with the one that begins there: it goes first.
  std::ranges::stable_sort(header.entries, {}, [](const SafetensorsEntry& entry) {
    return std::pair(entry.offset_bytes, entry.info.size_bytes != 0);
  });
  uint64_t end = 0;
  const std::string* before = nullptr;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.offset_bytes != end) {
      const std::string claim = "tensor " + quote(entry.info.name) + " begins at offset " +
                                std::to_string(entry.offset_bytes);
      if (entry.offset_bytes > end) {
        return Error{Code::kCorrupt, claim + ", which leaves a hole: the bytes before end at " +
                                         std::to_string(end)};
      }
      return Error{Code::kCorrupt, claim + ", inside tensor " + quote(*before) +
                                       ", which ends at " + std::to_string(end)};
    }
    end += entry.info.size_bytes;  // no overflow: its data_offsets end here
    before = &entry.info.name;
  }
  if (end == header.data_bytes) return {};
  return Error{Code::kCorrupt,
               "the tensors fill " + std::to_string(end) + " bytes, but " +
                   std::to_string(header.data_bytes) + " bytes stand behind the header: " +
                   (end > header.data_bytes ? "the file is cut off" : "bytes that no tensor owns")};
}

std::string json_text(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Result<uint64_t> parse_length_field(std::span<const std::byte> first_8_bytes, uint64_t file_bytes) {
  if (first_8_bytes.size() < kLengthFieldBytes || file_bytes < kLengthFieldBytes) {
    return Error{Code::kCorrupt, "the file has " + std::to_string(file_bytes) +
                                     " bytes; a safetensors file begins with a length field of 8"};
  }
  if (as_text(first_8_bytes.first(kLengthFieldBytes)) == "version ") {
    return Error{Code::kCorrupt,
                 "the file looks like a Git LFS pointer, not like weights; fetch the weights with "
                 "'git lfs pull'"};
  }
  const auto header_bytes = load_le<uint64_t>(first_8_bytes.data());
  const std::string claim =
      "the length field promises a header of " + std::to_string(header_bytes) + " bytes";
  if (header_bytes > kMaxHeaderBytes) {
    return Error{Code::kCorrupt,
                 claim + ", at most " + std::to_string(kMaxHeaderBytes) + " are allowed"};
  }
  if (header_bytes > file_bytes - kLengthFieldBytes) {
    return Error{Code::kCorrupt, claim + ", but only " +
                                     std::to_string(file_bytes - kLengthFieldBytes) +
                                     " bytes follow: the file is cut off"};
  }
  return header_bytes;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_bytes) {
  if (json.size() > kMaxHeaderBytes) {
    return Error{Code::kCorrupt, "the header has " + std::to_string(json.size()) +
                                     " bytes, at most " + std::to_string(kMaxHeaderBytes) +
                                     " are allowed"};
  }
  if (json.empty()) return Error{Code::kCorrupt, "the header is empty; expected an object"};
  if (json.front() != '{') {
    return Error{Code::kCorrupt, "the header begins with the byte 0x" +
                                     to_hex(as_bytes(json.substr(0, 1))) + "; expected '{'"};
  }
  HeaderSax sax;
  SILT_TRY(sax.parse(json, "the header"));
  const char last = json[json.find_last_not_of(' ')];
  if (last != '}') {
    return Error{Code::kCorrupt, "the byte 0x" + to_hex(as_bytes({&last, 1})) +
                                     " follows the closing brace of the header; only spaces may"};
  }
  SafetensorsHeader header = std::move(sax).take();
  header.data_bytes = data_bytes;
  SILT_TRY(check_unique(header));
  SILT_TRY(check_layout(header));
  return header;
}

std::string make_safetensors_prefix(
    const std::vector<TensorInfo>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata, uint64_t alignment) {
  std::string text(kLengthFieldBytes, '\0');
  text += '{';
  const auto separate = [&text] {
    if (text.back() == '}' || text.back() == '"') text += ',';
  };
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      separate();
      text += json_text(key) + ":" + json_text(value);
    }
    text += '}';
  }
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    separate();
    const uint64_t end = offset + tensor.size_bytes;
    text += json_text(tensor.name) + ":{\"dtype\":\"" + std::string(dtype_info(tensor.dtype).name) +
            "\",\"shape\":" + show_shape(tensor.shape) + ",\"data_offsets\":[" +
            std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  text += '}';
  text.resize(align_up(text.size(), alignment), ' ');
  store_le<uint64_t>(text.data(), text.size() - kLengthFieldBytes);
  return text;
}

}  // namespace siltstone
