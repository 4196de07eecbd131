#include "delta/pack.h"

#include <algorithm>

#include "base/try.h"
#include "delta/section.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

constexpr uint64_t kDataAlignment = 64;

Error corrupt(const std::string& problem) {
  return {Code::kCorrupt, "pack: " + problem};
}

// The value of a metadata key; nullptr if there is none.
const std::string* find_value(const std::vector<std::pair<std::string, std::string>>& metadata,
                              std::string_view key) {
  const auto found = std::ranges::find(metadata, key, &std::pair<std::string, std::string>::first);
  return found == metadata.end() ? nullptr : &found->second;
}

Status check_metadata(const std::vector<std::pair<std::string, std::string>>& metadata) {
  const std::string* format = find_value(metadata, "siltstone.format");
  if (format == nullptr) return corrupt("no siltstone.format in its metadata");
  if (*format != "1")
    return Error{Code::kUnsupported, "pack: format \"" + *format + "\", this program reads \"1\""};
  const std::string* kind = find_value(metadata, "siltstone.kind");
  if (kind == nullptr || *kind != "delta")
    return corrupt("siltstone.kind is " + (kind == nullptr ? "absent" : "\"" + *kind + "\"") +
                   ", expected \"delta\"");
  if (find_value(metadata, "siltstone.from") == nullptr)
    return corrupt("no siltstone.from in its metadata");
  return {};
}

Status check_entry(const SafetensorsEntry& entry) {
  const TensorInfo& info = entry.info;
  const auto refuse = [&info](const std::string& problem) {
    return corrupt("entry \"" + info.name + "\" " + problem);
  };
  if (info.dtype != DType::kU8 || info.shape.size() != 1)
    return refuse("is " + std::string(dtype_info(info.dtype).name) + " of rank " +
                  std::to_string(info.shape.size()) + ", expected U8 of rank 1");
  if (info.size_bytes == 0) return refuse("is empty");
  if (info.size_bytes % kSectionAlignment != 0)
    return refuse("has " + std::to_string(info.size_bytes) + " bytes, no multiple of 4");
  return {};
}

}  // namespace

std::string pack_prefix(const std::vector<PackEntry>& entries,
                        const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::vector<TensorInfo> tensors;
  tensors.reserve(entries.size());
  for (const PackEntry& entry : entries) {
    const uint64_t size_bytes = entry.sections.size();
    tensors.push_back({entry.tensor, DType::kU8, {static_cast<int64_t>(size_bytes)}, size_bytes});
  }
  return make_safetensors_prefix(tensors, metadata, kDataAlignment);
}

Result<PackIndex> parse_pack_index(ByteSpan prefix, uint64_t object_bytes) {
  if (prefix.size() < kLengthFieldBytes)
    return corrupt(std::to_string(prefix.size()) + " bytes, its length field alone takes 8");
  SILT_ASSIGN(const uint64_t header_bytes,
              parse_length_field(prefix.first(kLengthFieldBytes), object_bytes).in("pack"));
  const uint64_t data_begin = kLengthFieldBytes + header_bytes;
  if (prefix.size() < data_begin)
    return corrupt("header of " + std::to_string(header_bytes) + " bytes, only " +
                   std::to_string(prefix.size() - kLengthFieldBytes) + " given");
  if (data_begin % kDataAlignment != 0)
    return corrupt("data start at byte " + std::to_string(data_begin) + ", no multiple of 64");
  const std::string_view json = as_text(prefix.subspan(kLengthFieldBytes, header_bytes));
  SILT_ASSIGN(SafetensorsHeader header,
              parse_safetensors_header(json, object_bytes - data_begin).in("pack"));
  SILT_TRY(check_metadata(header.metadata));
  PackIndex index;
  index.metadata = std::move(header.metadata);
  index.entries.reserve(header.entries.size());
  for (SafetensorsEntry& entry : header.entries) {
    SILT_TRY(check_entry(entry));
    index.entries.push_back(
        {std::move(entry.info.name), data_begin + entry.offset_bytes, entry.info.size_bytes});
  }
  return index;
}

}  // namespace siltstone
