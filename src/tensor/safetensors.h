// The safetensors container: strict header parsing and writing (docs/format/checkpoint.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr uint64_t kMaxTensors = uint64_t{4} << 20;
inline constexpr size_t kMaxNameBytes = 512;
inline constexpr size_t kMaxRank = 16;
inline constexpr size_t kMaxMetadataEntries = 65'536;
inline constexpr size_t kLengthFieldBytes = 8;

struct SafetensorsEntry {
  TensorInfo info;
  uint64_t offset_bytes = 0;  // from the start of the data region
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // by ascending offset (empty tensors: as in the header)
  std::vector<std::pair<std::string, std::string>> metadata;
  uint64_t data_bytes = 0;
};

// `json` is the header's exact bytes; `data_bytes` the number of bytes behind it. One precise
// kCorrupt message for every way it can be wrong; kUnsupported for an unknown dtype.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_bytes);

// The length field, checked against the size of the file: returns the header's length.
Result<uint64_t> parse_length_field(std::span<const std::byte> first_8_bytes, uint64_t file_bytes);

// A compact header for tensors laid out back to back in the given order, padded with spaces so that
// the data region starts at a multiple of `alignment` bytes of the file. Returns the length field
// and the JSON text. REQUIRES: names and metadata are valid UTF-8 and unique, size_bytes are right,
// alignment is a power of two.
std::string make_safetensors_prefix(
    const std::vector<TensorInfo>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata, uint64_t alignment);

}  // namespace siltstone
