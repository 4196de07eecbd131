// A delta pack: a safetensors file with one U8 entry per changed tensor, whose bytes are that
// tensor's sections back to back (docs/format/delta_pack.md).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "delta/digest.h"
#include "siltstone/result.h"

namespace siltstone {

// What the data of a pack are cut into, from their first byte on, to be proven piece by piece.
inline constexpr uint64_t kChunkBytes = uint64_t{64} << 10;

// Entries of a pack that is being built: tensor name and its sections.
struct PackEntry {
  std::string tensor;
  std::vector<std::byte> sections;
};

// SHA-256 of each chunk of a pack's data, which are given in order and in pieces of any size,
// behind `skipped_bytes` of something else.
class ChunkHashes {
 public:
  explicit ChunkHashes(uint64_t skipped_bytes = 0) : skipped_bytes_(skipped_bytes) {}
  void update(ByteSpan piece);
  // Once.
  std::vector<Sha256Digest> finish();

 private:
  uint64_t skipped_bytes_;
  Sha256 hash_;
  uint64_t in_chunk_ = 0;
  std::vector<Sha256Digest> done_;
};

// The tables that let a reader do without parts of the pack: metadata for pack_prefix. Without
// `chunks` it is all of the pack or nothing.
Result<std::vector<std::pair<std::string, std::string>>> pack_tables(
    const std::vector<PackEntry>& entries, bool chunks);

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
  std::vector<PackIndexEntry> entries;  // by offset
  std::vector<std::pair<std::string, std::string>> metadata;
  uint64_t data_begin = 0;
  // What each entry adds to its tensor's sum, and the SHA-256 of each chunk; empty where the pack
  // does not tell them.
  std::vector<Sum128> sums;
  std::vector<Sha256Digest> chunks;
};

// Reads the index out of a pack's first bytes: `prefix` = length field and header; `object_bytes` =
// size of the whole object. Strict: safetensors rules, every entry U8 and 1-D, 4-aligned, back to
// back, filling the object.
Result<PackIndex> parse_pack_index(ByteSpan prefix, uint64_t object_bytes);

}  // namespace siltstone
