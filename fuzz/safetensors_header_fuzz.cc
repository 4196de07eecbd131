// The safetensors header parser: the first 8 bytes are the size of the data, the rest is the
// header.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/bytes.h"
#include "tensor/safetensors.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// What the parser promises of every header that it accepts.
void check(const siltstone::SafetensorsHeader& header, uint64_t data_bytes) {
  require(header.data_bytes == data_bytes);
  uint64_t end = 0;
  for (const siltstone::SafetensorsEntry& entry : header.entries) {
    require(!entry.info.name.empty() && entry.info.name.size() <= siltstone::kMaxNameBytes);
    require(entry.info.shape.size() <= siltstone::kMaxRank);
    const auto size = siltstone::tensor_size_bytes(entry.info.dtype, entry.info.shape);
    require(size.has_value() && *size == entry.info.size_bytes);
    require(entry.offset_bytes == end);
    end += *size;
  }
  require(end == data_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < siltstone::kLengthFieldBytes) return 0;
  const auto data_bytes = siltstone::load_le<uint64_t>(data);
  const std::string_view json(reinterpret_cast<const char*>(data) + siltstone::kLengthFieldBytes,
                              size - siltstone::kLengthFieldBytes);
  const auto header = siltstone::parse_safetensors_header(json, data_bytes);
  if (!header) {
    require(!header.error().message.empty());
    require(header.error().code == siltstone::Code::kCorrupt ||
            header.error().code == siltstone::Code::kUnsupported);
    return 0;
  }
  check(*header, data_bytes);

  // Writing what was read, in order of offset, gives a header that reads the same.
  std::vector<siltstone::TensorInfo> tensors;
  for (const siltstone::SafetensorsEntry& entry : header->entries) tensors.push_back(entry.info);
  const std::string prefix = siltstone::make_safetensors_prefix(tensors, header->metadata, 8);
  const auto again = siltstone::parse_safetensors_header(
      std::string_view(prefix).substr(siltstone::kLengthFieldBytes), data_bytes);
  require(again.has_value());
  require(again->metadata == header->metadata);
  require(std::ranges::equal(again->entries, header->entries, {},
                             &siltstone::SafetensorsEntry::info,
                             &siltstone::SafetensorsEntry::info));
  return 0;
}
