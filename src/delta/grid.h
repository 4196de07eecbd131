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
// 1 x 1; sub-byte dtypes are their bytes x 1; a tensor without elements is 0 x 0.
struct WordMatrix {
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint8_t word_bytes = 1;
  uint64_t words() const { return rows * cols; }
};

// REQUIRES: tensor.size_bytes == tensor_size_bytes(tensor.dtype, tensor.shape).
WordMatrix word_matrix(const TensorInfo& tensor);

struct Tile {
  uint64_t row_begin = 0;
  uint64_t rows = 0;
  uint64_t col_begin = 0;
  uint64_t cols = 0;
  uint64_t elements() const { return rows * cols; }
  bool operator==(const Tile&) const = default;
};

// Small enough that the list of a tile's changes stays in the cache while it is encoded.
inline constexpr uint64_t kTileBytes = uint64_t{8} << 20;

// The rule: Tiles are full-width row ranges of one height, from row 0 on, the last holding the rows
// that remain. The height is the largest multiple of h rows whose bytes are at most kTileBytes,
// where h is the smallest number of rows that fill a multiple of 8,192 bytes, or, if those already
// exceed kTileBytes, the smallest number that fill a multiple of 8 bytes. If these exceed
// kTileBytes too, they are the height.
//
// So every boundary lies at a multiple of 8 bytes of the tensor. Empty for a tensor without
// elements. REQUIRES: the matrix has fewer than 2^63 bytes.
std::vector<Tile> default_tiles(const WordMatrix& matrix);

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool operator==(const ByteRange&) const = default;
};

// Byte ranges of the tensor that the elements [begin, end) of the tile occupy, in order: one range
// if the tile is full width, else one per row touched. REQUIRES: the tile lies inside the matrix,
// and begin <= end <= tile.elements().
std::vector<ByteRange> tile_ranges(const WordMatrix& matrix, const Tile& tile, uint64_t begin,
                                   uint64_t end);

}  // namespace siltstone
