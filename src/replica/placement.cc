#include "replica/placement.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/try.h"
#include "delta/grid.h"

namespace siltstone {
namespace {

Error invalid(const TensorInfo& tensor, const std::string& what) {
  return {Code::kInvalidArgument, "the slots of tensor '" + tensor.name + "' " + what};
}

// Which of a range of units were seen.
class Seen {
 public:
  explicit Seen(uint64_t units) : words_(ceil_div(units, 64)) {}

  // Marks them; false if one of them was marked before.
  bool mark(uint64_t begin, uint64_t count) {
    bool fresh = true;
    while (count > 0) {
      const uint64_t bit = begin % 64;
      const uint64_t here = std::min<uint64_t>(64 - bit, count);
      const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << bit;
      uint64_t& word = words_[begin / 64];
      fresh = fresh && (word & mask) == 0;
      marked_ += static_cast<uint64_t>(__builtin_popcountll(mask & ~word));
      word |= mask;
      begin += here;
      count -= here;
    }
    return fresh;
  }
  uint64_t marked() const { return marked_; }

 private:
  std::vector<uint64_t> words_;
  uint64_t marked_ = 0;
};

// Whether the tile's last element is below `count`; nothing may overflow on the way.
bool inside(uint64_t begin, uint64_t rows, uint64_t columns, uint64_t row_stride,
            uint64_t column_stride, uint64_t count) {
  uint64_t down = 0;
  uint64_t across = 0;
  uint64_t last = 0;
  return rows > 0 && columns > 0 && checked_mul(rows - 1, row_stride, &down) &&
         checked_mul(columns - 1, column_stride, &across) && checked_add(down, across, &last) &&
         checked_add(last, begin, &last) && last < count;
}

// Calls range(begin, count) for the runs of neighbours in a strided rectangle.
template <class Range>
void for_runs(uint64_t begin, uint64_t rows, uint64_t columns, uint64_t row_stride,
              uint64_t column_stride, const Range& range) {
  for (uint64_t r = 0; r < rows; ++r) {
    const uint64_t row = begin + r * row_stride;
    if (column_stride == 1 || columns == 1) {
      range(row, columns);
      continue;
    }
    for (uint64_t c = 0; c < columns; ++c) range(row + c * column_stride, uint64_t{1});
  }
}

template <class Word>
void gather_strided(const std::byte* from, uint64_t stride, uint64_t count, std::byte* to,
                    uint64_t to_stride) {
  for (uint64_t i = 0; i < count; ++i) {
    std::memcpy(to + i * to_stride * sizeof(Word), from + i * stride * sizeof(Word), sizeof(Word));
  }
}

void gather_words(unsigned word_bytes, const std::byte* from, uint64_t stride, uint64_t count,
                  std::byte* to, uint64_t to_stride) {
  if (stride == 1 && to_stride == 1) {
    std::memcpy(to, from, count * word_bytes);
    return;
  }
  switch (word_bytes) {
    case 1:
      return gather_strided<uint8_t>(from, stride, count, to, to_stride);
    case 2:
      return gather_strided<uint16_t>(from, stride, count, to, to_stride);
    case 4:
      return gather_strided<uint32_t>(from, stride, count, to, to_stride);
    default:
      return gather_strided<uint64_t>(from, stride, count, to, to_stride);
  }
}

}  // namespace

Result<Placement> Placement::make(const TensorInfo& tensor, std::vector<Part> parts, bool share) {
  Placement placement;
  placement.word_bytes_ = word_matrix(tensor).word_bytes;
  placement.parts_ = std::move(parts);
  for (Part& part : placement.parts_) {  // strides that are not used must not count either
    if (part.tile.rows == 1) part.tile.source_row_stride = part.tile.destination_row_stride = 0;
    if (part.tile.columns == 1)
      part.tile.source_column_stride = part.tile.destination_column_stride = 1;
  }
  std::ranges::stable_sort(placement.parts_, {},
                           [](const Part& part) { return part.tile.source_begin; });
  SILT_TRY(placement.check(tensor, share));
  placement.find_resident(tensor);
  return placement;
}

Status Placement::check(const TensorInfo& tensor, bool share) const {
  const uint64_t words = tensor.size_bytes / word_bytes_;
  for (const Part& part : parts_) {
    const SlotTile& tile = part.tile;
    if (!inside(tile.source_begin, tile.rows, tile.columns, tile.source_row_stride,
                tile.source_column_stride, words))
      return invalid(tensor, "have a tile that lies outside the tensor");
    if (!inside(tile.destination_begin, tile.rows, tile.columns, tile.destination_row_stride,
                tile.destination_column_stride, part.destination.size() / word_bytes_))
      return invalid(tensor, "have a tile that lies outside its destination");
    const bool nested =
        tile.source_column_stride > 0 &&
        (tile.rows == 1 || (tile.columns - 1) * tile.source_column_stride < tile.source_row_stride);
    if (!nested) return invalid(tensor, "have a tile that counts elements twice");
  }
  if (share) return {};
  const uint64_t placed = placed_words(words);
  if (placed == words) return {};
  return invalid(tensor, "leave out " + std::to_string(words - placed) + " of its " +
                             std::to_string(words) + " elements");
}

// How many different elements the tiles have; one alone, as most are, has all of its own.
uint64_t Placement::placed_words(uint64_t words) const {
  if (parts_.size() == 1) return parts_.front().tile.rows * parts_.front().tile.columns;
  Seen seen(words);
  for (const Part& part : parts_) {
    const SlotTile& tile = part.tile;
    for_runs(tile.source_begin, tile.rows, tile.columns, tile.source_row_stride,
             tile.source_column_stride,
             [&seen](uint64_t begin, uint64_t count) { seen.mark(begin, count); });
  }
  return seen.marked();
}

void Placement::find_resident(const TensorInfo& tensor) {
  if (parts_.size() != 1) return;
  const SlotTile& tile = parts_.front().tile;
  if (tile.rows * tile.columns * word_bytes_ != tensor.size_bytes) return;
  const bool in_order = (tile.columns == 1 ||
                         (tile.source_column_stride == 1 && tile.destination_column_stride == 1)) &&
                        (tile.rows == 1 || tile.destination_row_stride == tile.source_row_stride);
  if (!in_order) return;
  resident_ =
      parts_.front().destination.subspan(tile.destination_begin * word_bytes_, tensor.size_bytes);
}

std::vector<const Placement::Part*> Placement::parts_within(uint64_t begin, uint64_t end) const {
  std::vector<const Part*> found;
  for (const Part& part : parts_) {
    const SlotTile& tile = part.tile;
    if (tile.source_begin >= end) break;
    const uint64_t last = tile.source_begin + (tile.rows - 1) * tile.source_row_stride +
                          (tile.columns - 1) * tile.source_column_stride;
    if (last >= begin) found.push_back(&part);
  }
  return found;
}

std::optional<uint64_t> Placement::place_in(const SlotTile& tile, uint64_t element) {
  if (element < tile.source_begin) return std::nullopt;
  const uint64_t at = element - tile.source_begin;
  const uint64_t row = tile.rows == 1 ? 0 : at / tile.source_row_stride;
  if (row >= tile.rows) return std::nullopt;
  const uint64_t rest = at - row * tile.source_row_stride;
  const uint64_t column = tile.source_column_stride == 1 ? rest : rest / tile.source_column_stride;
  if (column >= tile.columns || column * tile.source_column_stride != rest) return std::nullopt;
  return tile.destination_begin + row * tile.destination_row_stride +
         column * tile.destination_column_stride;
}

void Placement::gather_part(const Part& part, uint64_t begin, MutByteSpan out) const {
  const SlotTile& tile = part.tile;
  const uint64_t end = begin + out.size() / word_bytes_;
  const uint64_t width = (tile.columns - 1) * tile.source_column_stride + 1;
  const uint64_t skipped = begin >= tile.source_begin + width && tile.rows > 1
                               ? (begin - tile.source_begin - width) / tile.source_row_stride + 1
                               : 0;
  for (uint64_t r = skipped; r < tile.rows; ++r) {
    const uint64_t row = tile.source_begin + r * tile.source_row_stride;
    if (row >= end) break;
    const uint64_t step = tile.source_column_stride;
    const uint64_t first = row >= begin ? 0 : ceil_div(begin - row, step);
    const uint64_t last = std::min(tile.columns, ceil_div(end - row, step));
    if (first >= last) continue;
    const uint64_t from = tile.destination_begin + r * tile.destination_row_stride +
                          first * tile.destination_column_stride;
    gather_words(word_bytes_, part.destination.data() + from * word_bytes_,
                 tile.destination_column_stride, last - first,
                 out.data() + (row + first * step - begin) * word_bytes_, step);
  }
}

void Placement::gather(uint64_t offset_bytes, MutByteSpan out) const {
  if (!resident_.empty()) {
    std::memcpy(out.data(), resident_.data() + offset_bytes, out.size());
    return;
  }
  const uint64_t begin = offset_bytes / word_bytes_;
  for (const Part* part : parts_within(begin, begin + out.size() / word_bytes_))
    gather_part(*part, begin, out);
}

bool Placement::holds(uint64_t offset_bytes, ByteSpan bytes) const {
  if (!resident_.empty())
    return std::memcmp(resident_.data() + offset_bytes, bytes.data(), bytes.size()) == 0;
  const uint64_t begin = offset_bytes / word_bytes_;
  std::vector<std::byte> found(bytes.begin(), bytes.end());
  return std::ranges::all_of(parts_within(begin, begin + bytes.size() / word_bytes_),
                             [&](const Part* part) {
                               gather_part(*part, begin, found);
                               return std::memcmp(found.data(), bytes.data(), bytes.size()) == 0;
                             });
}

namespace {

// From a part's first byte to its last: addresses.
struct Range {
  uint64_t begin;
  uint64_t end;
  const Placement::Part* part;
  unsigned word_bytes;
};

uint64_t address(MutByteSpan memory) {
  return reinterpret_cast<uintptr_t>(memory.data());
}

Error overlap() {
  return {Code::kInvalidArgument,
          "two slots share memory: a tensor that another one is tied to must not be given places "
          "of its own"};
}

// Marks every byte of the ranges' tiles, which lie in [begin, end).
Status mark_all(std::span<const Range> ranges, uint64_t begin, uint64_t end) {
  Seen seen(end - begin);
  for (const Range& range : ranges) {
    const SlotTile& tile = range.part->tile;
    // May wrap around: the first element's offset brings it back.
    const uint64_t base = address(range.part->destination) - begin;
    bool fresh = true;
    for_runs(tile.destination_begin, tile.rows, tile.columns, tile.destination_row_stride,
             tile.destination_column_stride, [&](uint64_t first, uint64_t count) {
               fresh =
                   seen.mark(base + first * range.word_bytes, count * range.word_bytes) && fresh;
             });
    if (!fresh) return overlap();
  }
  return {};
}

Range range_of(const Placement::Part& part, unsigned word_bytes) {
  const SlotTile& tile = part.tile;
  const uint64_t last = tile.destination_begin + (tile.rows - 1) * tile.destination_row_stride +
                        (tile.columns - 1) * tile.destination_column_stride;
  const uint64_t base = address(part.destination);
  return {base + tile.destination_begin * word_bytes, base + (last + 1) * word_bytes, &part,
          word_bytes};
}

// Most tiles lie apart even as ranges; the bytes are looked at where ranges overlap.
Status check_apart(std::vector<Range> ranges) {
  std::ranges::sort(ranges, {}, &Range::begin);
  for (size_t first = 0, last = 0; first < ranges.size(); first = last) {
    uint64_t end = ranges[first].end;
    for (last = first + 1; last < ranges.size() && ranges[last].begin < end; ++last)
      end = std::max(end, ranges[last].end);
    const bool alone = last == first + 1 && ranges[first].part->tile.rows == 1 &&
                       ranges[first].part->tile.destination_column_stride != 0;
    if (alone) continue;
    SILT_TRY(mark_all(std::span(ranges).subspan(first, last - first), ranges[first].begin, end));
  }
  return {};
}

}  // namespace

Result<std::vector<size_t>> find_ties(std::span<const Placement> placements) {
  std::vector<size_t> first(placements.size());
  std::map<std::pair<uint64_t, size_t>, size_t> whole;  // by address and size
  std::vector<Range> ranges;
  for (size_t i = 0; i < placements.size(); ++i) {
    first[i] = i;
    const MutByteSpan resident = placements[i].resident();
    if (!resident.empty())
      first[i] = whole.try_emplace({address(resident), resident.size()}, i).first->second;
    if (first[i] != i) continue;
    for (const Placement::Part& part : placements[i].parts())
      ranges.push_back(range_of(part, placements[i].word_bytes()));
  }
  SILT_TRY(check_apart(std::move(ranges)));
  return first;
}

}  // namespace siltstone
