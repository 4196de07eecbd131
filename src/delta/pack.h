// A delta pack: a safetensors file with one U8 entry per changed tensor, whose bytes are that
// tensor's sections back to back (docs/format/delta_pack.md).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "siltstone/result.h"

namespace siltstone {

// Entries of a pack that is being built: tensor name and its sections.
struct PackEntry {
  std::string tensor;
  std::vector<std::byte> sections;
};

// What stands in front of the entries' bytes: length field and JSON header, padded so that data
// start at a multiple of 64. Entries keep their order. `metadata` becomes __metadata__.
std::string pack_prefix(const std::vector<PackEntry>& entries,
                        const std::vector<std::pair<std::string, std::string>>& metadata);

struct PackIndexEntry {
  std::string tensor;
  uint64_t offset_bytes = 0;  // from the start of the object
  uint64_t size_bytes = 0;
};

struct PackIndex {
  std::vector<PackIndexEntry> entries;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Reads the index out of a pack's first bytes: `prefix` = length field and header; `object_bytes` =
// size of the whole object. Strict: safetensors rules, every entry U8 and 1-D, 16-aligned, sorted
// by offset, filling the object.
Result<PackIndex> parse_pack_index(ByteSpan prefix, uint64_t object_bytes);

}  // namespace siltstone
