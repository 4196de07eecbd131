// How a tensor is cut: its two-dimensional view in words, tiles of it, blocks inside tiles.
//
// docs/format/delta_pack.md, "Grid". The default grid depends on dtype and shape alone, so that
// every version of a tensor is cut alike and links of a chain can be staged block by block.
#pragma once

#include <cstdint>
#include <vector>

#include "siltstone/tensor.h"

namespace siltstone {

// Rows = all leading dimensions multiplied, columns = the last; a 1-D tensor is n x 1, a 0-d tensor
// 1 x 1; sub-byte dtypes are their bytes x 1.
struct WordMatrix {
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint8_t word_bytes = 1;
  uint64_t words() const { return rows * cols; }
};

WordMatrix word_matrix(const TensorInfo& tensor);

struct Tile {
  uint64_t row_begin = 0;
  uint64_t rows = 0;
  uint64_t col_begin = 0;
  uint64_t cols = 0;
  uint64_t elements() const { return rows * cols; }
  bool operator==(const Tile&) const = default;
};

inline constexpr uint64_t kTileBytes = uint64_t{16} << 20;

// Full-width row ranges of at most kTileBytes (or one smallest range if a row is larger), every
// boundary at a multiple of 8 bytes of the tensor. Empty for a tensor without elements.
std::vector<Tile> default_tiles(const WordMatrix& matrix);

// Byte ranges of the tensor that the elements [begin, end) of the tile occupy, in order: one range
// if the tile is full width, else one per row touched.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};
std::vector<ByteRange> tile_ranges(const WordMatrix& matrix, const Tile& tile, uint64_t begin,
                                   uint64_t end);

}  // namespace siltstone
