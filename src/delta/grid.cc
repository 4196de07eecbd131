#include "delta/grid.h"

#include <algorithm>
#include <numeric>

#include "base/bytes.h"

namespace siltstone {
namespace {

// Largest multiple, in rows, of the fewest rows that fill a multiple of `align_bytes` (a power of
// two), of at most kTileBytes; 0 if already the fewest exceed that.
uint64_t aligned_height(uint64_t row_bytes, uint64_t align_bytes) {
  const uint64_t fewest = align_bytes / std::gcd(row_bytes, align_bytes);
  uint64_t fewest_bytes = 0;
  if (!checked_mul(fewest, row_bytes, &fewest_bytes)) return 0;
  return kTileBytes / fewest_bytes * fewest;
}

uint64_t tile_height(uint64_t row_bytes) {
  constexpr uint64_t kDigestBlockBytes = 8192;
  constexpr uint64_t kDigestWordBytes = 8;
  if (const uint64_t height = aligned_height(row_bytes, kDigestBlockBytes)) return height;
  if (const uint64_t height = aligned_height(row_bytes, kDigestWordBytes)) return height;
  return kDigestWordBytes / std::gcd(row_bytes, kDigestWordBytes);
}

}  // namespace

WordMatrix word_matrix(const TensorInfo& tensor) {
  const DTypeInfo& dtype = dtype_info(tensor.dtype);
  WordMatrix matrix;
  matrix.word_bytes = dtype.word_bytes;
  if (tensor.size_bytes == 0) return matrix;
  matrix.cols = 1;
  if (dtype.bits < 8) {
    matrix.rows = tensor.size_bytes;
    return matrix;
  }
  if (tensor.shape.size() > 1) matrix.cols = static_cast<uint64_t>(tensor.shape.back());
  matrix.rows = tensor.size_bytes / dtype.word_bytes / matrix.cols;
  return matrix;
}

std::vector<Tile> default_tiles(const WordMatrix& matrix) {
  std::vector<Tile> tiles;
  if (matrix.words() == 0) return tiles;
  const uint64_t height = tile_height(matrix.cols * matrix.word_bytes);
  tiles.reserve(ceil_div(matrix.rows, height));
  for (uint64_t row = 0; row < matrix.rows;) {
    const uint64_t rows = std::min(height, matrix.rows - row);
    tiles.push_back({.row_begin = row, .rows = rows, .col_begin = 0, .cols = matrix.cols});
    row += rows;
  }
  return tiles;
}

std::vector<ByteRange> tile_ranges(const WordMatrix& matrix, const Tile& tile, uint64_t begin,
                                   uint64_t end) {
  std::vector<ByteRange> ranges;
  if (begin >= end) return ranges;
  const uint64_t word_bytes = matrix.word_bytes;
  if (tile.cols == matrix.cols) {
    const uint64_t first = tile.row_begin * matrix.cols + begin;
    ranges.push_back({.offset = first * word_bytes, .length = (end - begin) * word_bytes});
    return ranges;
  }
  ranges.reserve((end - 1) / tile.cols - begin / tile.cols + 1);
  while (begin < end) {
    const uint64_t col = begin % tile.cols;
    const uint64_t count = std::min(tile.cols - col, end - begin);
    const uint64_t row = tile.row_begin + begin / tile.cols;
    const uint64_t first = row * matrix.cols + tile.col_begin + col;
    ranges.push_back({.offset = first * word_bytes, .length = count * word_bytes});
    begin += count;
  }
  return ranges;
}

}  // namespace siltstone
