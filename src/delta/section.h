// A section: one encoded tile of one tensor (docs/format/delta_pack.md).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "delta/digest.h"
#include "delta/grid.h"
#include "siltstone/codec.h"

namespace siltstone {

// A header has this many bytes of fixed fields, and at most kMaxSectionHeaderBytes with its
// numbers.
inline constexpr size_t kFixedHeaderBytes = 40;
inline constexpr size_t kMaxSectionHeaderBytes = kFixedHeaderBytes + 7 * 9;
inline constexpr uint64_t kSectionAlignment = 4;  // of section lengths and block payloads

struct SectionHeader {
  DType dtype = DType::kU8;
  uint16_t codec = 0;
  Need need = Need::kNothing;
  uint8_t log2_block = kDefaultLog2Block;
  uint32_t params_bytes = 0;
  uint64_t section_bytes = 0;
  Tile tile;
  uint64_t changed = 0;
  Sum128 sum_before;
  Sum128 sum_after;
  uint32_t checksum = 0;
  size_t header_bytes = 0;  // the lengths of the blocks follow, then the parameters

  uint64_t elements() const { return tile.elements(); }
  uint64_t blocks() const { return ceil_div(elements(), uint64_t{1} << log2_block); }
  Sum128 change() const { return sum_after - sum_before; }  // of the tensor's sum
};

// Parses and bounds what a section begins with: its first kMaxSectionHeaderBytes bytes, or all it
// has. kCorrupt, or kUnsupported for what a newer
// or larger implementation may read. The codec's id is not looked up.
Result<SectionHeader> parse_section_header(ByteSpan bytes);

// Cuts the bytes of a pack entry into its sections by their headers, and refuses tiles that
// overlap.
Result<std::vector<ByteSpan>> split_sections(ByteSpan entry);

// kCorrupt if two of the tiles share an element: applying them in parallel would race.
Status check_disjoint(std::vector<Tile> tiles);

// Encodes a tile with the codec whose result is smallest (or with `forced`). Appends a section to
// `out` whose length is a multiple of 4. REQUIRES: change.changed() > 0.
Status append_section(const TileChange& change, const Tile& tile, const Sum128& before,
                      const Sum128& after, const Codec* forced, std::vector<std::byte>* out);

// A checked section, ready to decode. Borrows `bytes`.
class Section {
 public:
  // Verifies the header, the checksum, the offset table, and that the tile lies inside `matrix` and
  // the dtype is `dtype`.
  static Result<Section> open(ByteSpan bytes, const WordMatrix& matrix, DType dtype);

  const SectionHeader& header() const { return header_; }
  // Turns the block's old words into its new words (siltstone/codec.h, BlockDecoder::apply). A
  // block without changes returns 0 and leaves `words` alone.
  Result<uint64_t> apply(uint64_t block, MutByteSpan words, ByteSpan earlier = {}) const;
  // Whether the block has changes.
  bool touches(uint64_t block) const { return !code_->blocks[block].empty(); }

 private:
  SectionHeader header_;
  std::unique_ptr<TileCode> code_;
  std::unique_ptr<BlockDecoder> decoder_;
};

}  // namespace siltstone
