#include "repo/state.h"

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

uint64_t tile_offset(const WordMatrix& matrix, const Tile& tile) {
  return tile.row_begin * matrix.cols * matrix.word_bytes;
}

uint64_t tile_bytes(const WordMatrix& matrix, const Tile& tile) {
  return tile.rows * matrix.cols * matrix.word_bytes;
}

Error wrong_base(const TensorInfo& info) {
  return {Code::kMismatch,
          "tensor '" + info.name + "' does not hold the words that the delta " + "starts from"};
}

Error wrong_result(const TensorInfo& info) {
  return {Code::kCorrupt,
          "tensor '" + info.name + "': the delta does not lead to the words it " + "promises"};
}

}  // namespace

Status CheckpointBytes::read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const {
  const ByteSpan f32 = checkpoint_.masters(tensor);
  const uint64_t size_bytes = f32.size() / 2;
  const bool inside = offset_bytes <= size_bytes && out.size() <= size_bytes - offset_bytes;
  if (f32.empty() || !inside || offset_bytes % 2 != 0 || out.size() % 2 != 0) {
    return checkpoint_.read(tensor, offset_bytes, out);
  }
  kernels().cast(f32.data() + 2 * offset_bytes, out.size() / 2, out.data());
  return {};
}

StateReader::StateReader(std::span<const TensorInfo> tensors, const StateBytes& base,
                         const Chain* chain, const StateReader* earlier)
    : tensors_(tensors), base_(base), chain_(chain), earlier_(earlier) {}

Result<std::vector<size_t>> StateReader::arrived(size_t known) const {
  if (chain_ != nullptr) return chain_->arrived(known);
  std::vector<size_t> rest(tensors_.size() - known);
  std::iota(rest.begin(), rest.end(), known);
  return rest;
}

bool StateReader::needs_whole(size_t tensor) const {
  if (!touches(tensor)) return false;
  const std::vector<Tile> tiles = default_tiles(word_matrix(tensors_[tensor]));
  return std::any_of(chain_->pieces(tensor).begin(), chain_->pieces(tensor).end(),
                     [&tiles](const Chain::Piece& piece) {
                       const auto found = std::lower_bound(
                           tiles.begin(), tiles.end(), piece.header.tile.row_begin,
                           [](const Tile& tile, uint64_t row) { return tile.row_begin < row; });
                       return found == tiles.end() || *found != piece.header.tile;
                     });
}

Result<std::vector<Stretch>> StateReader::stretches(size_t tensor, uint64_t limit_bytes) const {
  const TensorInfo& info = tensors_[tensor];
  const WordMatrix matrix = word_matrix(info);
  std::vector<Stretch> out;
  if (needs_whole(tensor)) {
    if (info.size_bytes > limit_bytes) {
      return Error{Code::kUnsupported,
                   "tensor '" + info.name + "' has " + format_bytes(info.size_bytes) +
                       " and was published in tiles of another grid, which needs it whole in " +
                       "memory; the budget is " + format_bytes(limit_bytes)};
    }
    out.push_back({tensor, 0, info.size_bytes, true});
    return out;
  }
  for (const Tile& tile : default_tiles(matrix)) {
    out.push_back({tensor, tile_offset(matrix, tile), tile_bytes(matrix, tile), false});
  }
  return out;
}

Status StateReader::Cursor::find_words(ByteSpan words) {
  const StateBytes& base = reader_->base_;
  words_ = words;
  if (!words_.empty() || stretch_.length_bytes == 0) return {};
  if (const ByteSpan resident = base.resident(stretch_.tensor); !resident.empty()) {
    words_ = resident.subspan(stretch_.offset_bytes, stretch_.length_bytes);
    return {};
  }
  if (base.transfers() == 0) return {};
  fetched_.resize(stretch_.length_bytes);
  words_ = fetched_;
  return base.read(stretch_.tensor, stretch_.offset_bytes, fetched_);
}

Status StateReader::Cursor::begin(const Stretch& stretch, ByteSpan words) {
  const TensorInfo& info = reader_->tensors_[stretch.tensor];
  stretch_ = stretch;
  SILT_TRY(find_words(words));
  matrix_ = word_matrix(info);
  open_.clear();
  at_ = 0;
  before_ = after_ = {};
  unsigned log2_block = kDefaultLog2Block;
  if (reader_->touches(stretch.tensor)) {
    for (const Chain::Piece& piece : reader_->chain_->pieces(stretch.tensor)) {
      const bool here = tile_offset(matrix_, piece.header.tile) == stretch.offset_bytes;
      if (!stretch.whole && !here) continue;
      Open open;
      open.piece = &piece;
      SILT_ASSIGN(const ByteSpan bytes, reader_->chain_->read(piece, &open.scratch));
      Result<Section> section = Section::open(bytes, matrix_, info.dtype);
      if (!section) return std::move(section).error().in("tensor '" + info.name + "'");
      open.section = std::make_unique<Section>(*std::move(section));
      log2_block = std::max<unsigned>(log2_block, piece.header.log2_block);
      open_.push_back(std::move(open));
    }
  }
  earlier_cursor_.reset();
  const bool from_the_start = std::ranges::any_of(
      open_, [](const Open& open) { return open.piece->link == 0 && looks_back(open); });
  if (from_the_start) {
    if (reader_->earlier_ == nullptr)
      return Error{Code::kMismatch, "tensor '" + info.name +
                                        "': its delta looks at the version before the one that it "
                                        "starts from, which is not known here"};
    earlier_cursor_ = std::make_unique<Cursor>(*reader_->earlier_);
    SILT_TRY(earlier_cursor_->begin(stretch));
  }
  block_bytes_ =
      stretch_.whole ? stretch.length_bytes : (uint64_t{1} << log2_block) * matrix_.word_bytes;
  return {};
}

uint64_t StateReader::Cursor::next_bytes() const {
  return std::min(block_bytes_, stretch_.length_bytes - at_);
}

// The section's tile is the stretch, so a block of the stretch is a whole number of its blocks.
Status StateReader::Cursor::apply_aligned(Open& open, uint64_t begin_element, MutByteSpan block) {
  const unsigned log2_block = open.piece->header.log2_block;
  const uint64_t step_bytes = (uint64_t{1} << log2_block) * matrix_.word_bytes;
  for (uint64_t offset = 0; offset < block.size(); offset += step_bytes) {
    const uint64_t number = (begin_element >> log2_block) + offset / step_bytes;
    if (!open.section->touches(number)) continue;
    const MutByteSpan words = block.subspan(offset, std::min(step_bytes, block.size() - offset));
    const ByteSpan earlier =
        looks_back(open) ? ByteSpan(earlier_).subspan(offset, words.size()) : ByteSpan();
    SILT_ASSIGN(const uint64_t changed, open.section->apply(number, words, earlier));
    open.counted += changed;
    changed_ = true;
  }
  return {};
}

// Any tile: its elements are gathered into a block, changed, and put back.
Status StateReader::Cursor::apply_anywhere(Open& open, MutByteSpan tensor) {
  const SectionHeader& header = open.piece->header;
  const uint64_t step = uint64_t{1} << header.log2_block;
  for (uint64_t number = 0; number < header.blocks(); ++number) {
    if (!open.section->touches(number)) continue;
    const uint64_t begin = number * step;
    const uint64_t end = std::min(begin + step, header.elements());
    const std::vector<ByteRange> ranges = tile_ranges(matrix_, header.tile, begin, end);
    gather_.resize((end - begin) * matrix_.word_bytes);
    std::vector<std::byte> earlier(looks_back(open) ? gather_.size() : 0);
    uint64_t at = 0;
    for (const ByteRange& range : ranges) {
      std::memcpy(gather_.data() + at, tensor.data() + range.offset, range.length);
      if (!earlier.empty())
        std::memcpy(earlier.data() + at, earlier_.data() + range.offset, range.length);
      at += range.length;
    }
    SILT_ASSIGN(const uint64_t changed, open.section->apply(number, gather_, earlier));
    open.counted += changed;
    changed_ = true;
    at = 0;
    for (const ByteRange& range : ranges) {
      std::memcpy(tensor.data() + range.offset, gather_.data() + at, range.length);
      at += range.length;
    }
  }
  return {};
}

// What the words were one version before the link's start: what they were before the link that was
// applied last, or, for the first one, what whoever holds the base also holds. If the link before
// passed the words on, they are themselves.
Status StateReader::Cursor::find_earlier(OpenRange link, ByteSpan block) {
  const size_t number = link.front().piece->link;
  if (earlier_of_ == number || std::ranges::none_of(link, looks_back)) return {};
  earlier_.resize(block.size());
  earlier_of_ = number;
  if (number != 0) {
    std::memcpy(earlier_.data(), block.data(), block.size());
    return {};
  }
  for (uint64_t at = 0; at < block.size();) {
    const MutByteSpan part = MutByteSpan(earlier_).subspan(at);
    if (earlier_cursor_->next_bytes() > part.size())
      return Error{Code::kInternal, "the version before is read in larger blocks"};
    SILT_ASSIGN(const ByteSpan words, earlier_cursor_->next(part));
    if (words.data() != part.data()) std::memcpy(part.data(), words.data(), words.size());
    at += words.size();
  }
  return {};
}

Status StateReader::Cursor::apply_links(uint64_t offset, MutByteSpan block, Sum128* sum) {
  earlier_of_.reset();
  for (size_t begin = 0, end = 0; begin < open_.size(); begin = end) {
    const size_t number = open_[begin].piece->link;
    while (end < open_.size() && open_[end].piece->link == number) ++end;
    const OpenRange link = OpenRange(open_).subspan(begin, end - begin);
    SILT_TRY(find_earlier(link, block));
    const bool last = keeps_last_ && number + 1 == reader_->chain_->links();
    const bool next_looks_back = end < open_.size() && open_[end].piece->link == number + 1 &&
                                 std::ranges::any_of(OpenRange(open_).subspan(end), looks_back);
    if (last) kept_.assign(block.begin(), block.end());
    if (next_looks_back) past_.assign(block.begin(), block.end());
    const bool had = changed_;
    changed_ = false;
    for (Open& open : link) SILT_TRY(apply(open, block));
    if (last && changed_) before_last_ = kept_;
    if (next_looks_back) {
      std::swap(earlier_, past_);
      earlier_of_ = number + 1;
    }
    if (on_link && changed_) {
      const Sum128 now = digest_bytes(block, offset);
      on_link(number, now - *sum);
      *sum = now;
    }
    changed_ = changed_ || had;
  }
  return {};
}

Status StateReader::Cursor::apply(Open& open, MutByteSpan block) {
  return stretch_.whole ? apply_anywhere(open, block)
                        : apply_aligned(open, at_ / matrix_.word_bytes, block);
}

Result<ByteSpan> StateReader::Cursor::next(MutByteSpan scratch) {
  const uint64_t length = next_bytes();
  const uint64_t offset = stretch_.offset_bytes + at_;
  const TensorInfo& info = reader_->tensors_[stretch_.tensor];
  changed_ = false;
  before_last_ = {};
  if (open_.empty() && !words_.empty()) {
    const ByteSpan words = words_.subspan(at_, length);
    const Sum128 sum = digest_bytes(words, offset);
    before_ += sum;
    after_ += sum;
    at_ += length;
    return words;
  }
  const MutByteSpan block = scratch.subspan(0, length);
  if (!words_.empty()) {
    std::memcpy(block.data(), words_.data() + at_, length);
  } else {
    SILT_TRY(reader_->base_.read(stretch_.tensor, offset, block));
  }
  Sum128 sum = digest_bytes(block, offset);
  before_ += sum;
  SILT_TRY(apply_links(offset, block, &sum).in("tensor '" + info.name + "'"));
  after_ += changed_ && !on_link ? digest_bytes(block, offset) : sum;
  at_ += length;
  return ByteSpan(block);
}

Status StateReader::Cursor::finish() {
  const TensorInfo& info = reader_->tensors_[stretch_.tensor];
  if (earlier_cursor_ != nullptr) SILT_TRY(earlier_cursor_->finish());
  Sum128 change;
  for (const Open& open : open_) {
    const SectionHeader& header = open.piece->header;
    if (open.counted != header.changed) {
      return Error{Code::kCorrupt,
                   "tensor '" + info.name + "': a section changes " + std::to_string(open.counted) +
                       " elements, its header says " + std::to_string(header.changed)};
    }
    change += header.change();
  }
  if (!open_.empty() && !stretch_.whole) {
    if (before_ != open_.front().piece->header.sum_before) return wrong_base(info);
    if (after_ != open_.back().piece->header.sum_after) return wrong_result(info);
  }
  if (after_ != before_ + change) return wrong_result(info);
  return {};
}

// A tensor of one tile can be needed whole as well, so the number of stretches does not tell.
Result<std::vector<Stretch>> shared_stretches(const StateReader& a, size_t a_tensor,
                                              const StateReader& b, size_t b_tensor,
                                              uint64_t limit_bytes) {
  SILT_ASSIGN(std::vector<Stretch> stretches, a.stretches(a_tensor, limit_bytes));
  if (!stretches.empty() && stretches.front().whole) return stretches;
  SILT_ASSIGN(stretches, b.stretches(b_tensor, limit_bytes));
  for (Stretch& stretch : stretches) stretch.tensor = a_tensor;
  return stretches;
}

Status read_stretch(const StateReader& reader, const Stretch& stretch,
                    std::vector<std::byte>* out) {
  out->resize(stretch.length_bytes);
  StateReader::Cursor cursor(reader);
  SILT_TRY(cursor.begin(stretch));
  for (uint64_t at = 0; !cursor.done();) {
    const uint64_t length = cursor.next_bytes();
    const MutByteSpan part(out->data() + at, length);
    SILT_ASSIGN(const ByteSpan words, cursor.next(part));
    if (words.data() != part.data()) std::memcpy(part.data(), words.data(), length);
    at += length;
  }
  return cursor.finish();
}

std::vector<StateRow> state_rows(std::span<const TensorInfo> tensors,
                                 const std::vector<Sum128>& sums) {
  std::vector<StateRow> rows;
  rows.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    rows.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, sums[i]});
  }
  return rows;
}

Result<std::vector<Sum128>> sum_all(std::span<const TensorInfo> tensors, const StateBytes& bytes,
                                    unsigned threads) {
  const StateReader reader(tensors, bytes, nullptr);
  std::vector<Stretch> work;
  for (size_t t = 0; t < tensors.size(); ++t) {
    SILT_ASSIGN(const std::vector<Stretch> stretches, reader.stretches(t, UINT64_MAX));
    work.insert(work.end(), stretches.begin(), stretches.end());
  }
  SumTable table(tensors.size());
  SILT_TRY(parallel_for(work.size(), threads, [&](uint64_t i, unsigned) -> Status {
    thread_local std::vector<std::byte> scratch;
    StateReader::Cursor cursor(reader);
    SILT_TRY(cursor.begin(work[i]));
    while (!cursor.done()) {
      scratch.resize(std::max<size_t>(scratch.size(), cursor.next_bytes()));
      SILT_TRY(cursor.next(scratch));
    }
    table.add(work[i].tensor, cursor.after());
    return {};
  }));
  std::vector<Sum128> sums;
  for (size_t t = 0; t < tensors.size(); ++t) sums.push_back(table[t]);
  return sums;
}

unsigned threads_within(unsigned threads, uint64_t budget_bytes, uint64_t each_bytes) {
  if (threads == 0) threads = available_threads();
  const uint64_t fit = std::max<uint64_t>(1, budget_bytes / std::max<uint64_t>(1, each_bytes));
  return static_cast<unsigned>(std::min<uint64_t>(threads, fit));
}

unsigned workers_within(unsigned transfers, unsigned threads, uint64_t budget_bytes,
                        uint64_t each_bytes) {
  if (threads == 0) threads = available_threads();
  return threads_within(std::max(threads, transfers), budget_bytes, each_bytes);
}

}  // namespace siltstone
