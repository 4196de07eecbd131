// Two passes: the first sorts every change of the tile into its class and every dense element into
// a symbol, the second writes blocks with the parameters that the first one's counts ask for.
#include "delta/codecs/class_encode.h"

#include <algorithm>
#include <bit>

#include "delta/codecs/block_view.h"
#include "delta/codecs/class_layout.h"
#include "delta/codecs/word_steps.h"
#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

constexpr unsigned kSparse = 6;
constexpr unsigned kTables = 12;
constexpr uint64_t kSampledWindows = 16;
constexpr uint64_t kLeastSamples = 48;  // of an exponent, to judge it by

// A change of a sparse class: gaps stay below 2^24.
constexpr uint32_t kDownBit = 1U << 31;
constexpr uint32_t kExceptionBit = 1U << 30;
constexpr uint32_t kGapMask = kExceptionBit - 1;

template <class W>
struct BlockRecord {
  std::array<std::vector<uint32_t>, kSparse> gaps;  // with the bits above
  std::array<std::vector<W>, kSparse> exceptions;   // new words, in order
  std::vector<uint16_t> symbols;                    // table << 8 | symbol, of dense elements
  std::vector<W> wide_steps;                        // of the symbols that raw bits follow
  std::vector<uint32_t> window_ends;                // in `symbols`

  void clear() {
    for (auto& gaps_of_class : gaps) gaps_of_class.clear();
    for (auto& words : exceptions) words.clear();
    symbols.clear();
    wide_steps.clear();
    window_ends.clear();
  }
};

// Kept from tile to tile; bounded by the largest tile's elements.
template <class W>
struct Scratch {
  std::vector<BlockRecord<W>> blocks;
  std::vector<uint16_t> rans_words;
  ClassWindow window;
  std::array<std::array<uint16_t, kWindowElements>, kSparse + 1> sorted;  // changes by class
};
template <class W>
Scratch<W>& scratch() {
  thread_local Scratch<W> buffers;
  return buffers;
}

// Without the instruction, which not every CPU has, the library's own is a call.
int ones(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
  return static_cast<int>(x * 0x0101010101010101 >> 56);
}

// By step + 4, for steps of at most four.
constexpr std::array<uint8_t, 2 * kExactSteps + 1> kSmallSymbols = {8, 6, 4, 2, 0, 1, 3, 5, 7};

template <class W>
class ClassEncoder {
 public:
  explicit ClassEncoder(const TileChange& change)
      : change_(change),
        field_(exponent_field(change.dtype)),
        ranks_(dtype_info(change.dtype).order),
        records_(scratch<W>().blocks),
        window_(scratch<W>().window),
        sorted_(scratch<W>().sorted) {
    if (records_.size() < change.blocks()) records_.resize(change.blocks());
  }

  EncodedTile encode() {
    params_.threshold = sampled_threshold();
    params_.rice_bits.assign(kSparse, 0);
    params_.tables.assign(field_.exponents == 1 ? 1 : kTables, std::nullopt);
    cuts_ = params_.cuts(field_);
    for (unsigned e = 0; e < params_.threshold; ++e)
      by_exponent_.push_back(static_cast<uint8_t>(params_.table_of(e)));
    for (uint64_t block = 0; block < change_.blocks(); ++block)
      if (block_changes(change_, block).count() != 0) record_block(block);
    choose_params();
    EncodedTile tile;
    tile.params = write_class_params(params_);
    tile.blocks.resize(change_.blocks());
    for (uint64_t block = 0; block < change_.blocks(); ++block)
      if (block_changes(change_, block).count() != 0)
        write_block(records_[block], &tile.blocks[block]);
    return tile;
  }

 private:
  unsigned sampled_threshold() const;
  void record_block(uint64_t block);
  void record_dense(const std::byte* old_words, const std::byte* new_words, size_t dense,
                    BlockRecord<W>* record);
  void record_sparse(ChangeRange changes, uint32_t first_position, BlockRecord<W>* record);
  void choose_params();
  void choose_tables();
  void write_block(const BlockRecord<W>& record, std::vector<std::byte>* out) const;

  static W load(const std::byte* words, uint64_t index) {
    return load_le<W>(words + index * sizeof(W));
  }

  const TileChange& change_;
  const ExponentField field_;
  const WordRanks<W> ranks_;
  ClassParams params_;
  ClassCuts cuts_;
  std::vector<BlockRecord<W>>& records_;
  ClassWindow& window_;
  std::array<std::array<uint16_t, kWindowElements>, kSparse + 1>& sorted_;
  std::vector<uint8_t> by_exponent_;             // table of each dense exponent
  std::array<uint64_t, kSparse> class_begin_{};  // members in the block's windows before
  std::array<uint64_t, kSparse> next_rank_{};    // of a change with gap 0
  std::array<uint64_t, kSparse> members_{};      // in all blocks
  std::array<uint64_t, kSparse> changed_{};
  std::array<SymbolCounts, kTables> counts_{};
  uint64_t dense_blocks_ = 0;
  uint64_t dense_elements_ = 0;
};

// One above the highest exponent of which more than one word in nine changed, in the sampled
// windows.
template <class W>
unsigned ClassEncoder<W>::sampled_threshold() const {
  const uint64_t windows = ceil_div(change_.elements, kWindowElements);
  const uint64_t stride = std::max<uint64_t>(1, windows / kSampledWindows);
  std::vector<uint32_t> seen(field_.exponents);
  std::vector<uint32_t> changed(field_.exponents);
  for (uint64_t window = 0; window < windows; window += stride) {
    const uint64_t begin = window * kWindowElements;
    const uint64_t end = std::min(begin + kWindowElements, change_.elements);
    for (uint64_t i = begin; i < end; ++i) ++seen[field_.of(load(change_.old_words.data(), i))];
    const uint64_t run = begin / kRunElements;
    const auto first = change_.positions.begin();
    const auto from = first + static_cast<ptrdiff_t>(run == 0 ? 0 : change_.run_ends[run - 1]);
    const auto to = first + static_cast<ptrdiff_t>(change_.run_ends[run]);
    const auto low = std::lower_bound(from, to, begin % kRunElements);
    const auto high = std::lower_bound(low, to, begin % kRunElements + kWindowElements);
    for (auto at = low; at != high; ++at)
      ++changed[field_.of(load(change_.replaced_words.data(), static_cast<uint64_t>(at - first)))];
  }
  for (unsigned e = field_.exponents; e-- > 0;)
    if (seen[e] >= kLeastSamples && uint64_t{9} * changed[e] >= seen[e]) return e + 1;
  return 0;
}

template <class W>
void ClassEncoder<W>::record_block(uint64_t block) {
  BlockRecord<W>& record = records_[block];
  record.clear();
  const uint64_t first = block << change_.log2_block;
  const uint64_t elements = block_elements(change_.elements, change_.log2_block, block);
  class_begin_.fill(0);
  next_rank_.fill(0);
  const std::byte* old_words = change_.old_words.data() + first * sizeof(W);
  uint64_t at = block_changes(change_, block).begin;
  const uint64_t end = block_changes(change_, block).end;
  uint64_t run = first / kRunElements;
  for (uint64_t begin = 0; begin < elements; begin += kWindowElements) {
    const size_t n = std::min<uint64_t>(kWindowElements, elements - begin);
    const std::byte* window_words = old_words + begin * sizeof(W);
    kernels().classify[std::countr_zero(sizeof(W))](window_words, n, cuts_, &window_);
    const size_t groups = ceil_div(n, kGroupElements);
    run = (first + begin) / kRunElements;
    const auto in_run = static_cast<uint32_t>((first + begin) % kRunElements);
    const uint64_t first_change = at;
    while (at < end && at < change_.run_ends[run] && change_.positions[at] < in_run + n) ++at;
    record_sparse({first_change, at}, in_run, &record);
    record_dense(window_words, change_.new_words.data() + (first + begin) * sizeof(W),
                 window_.before[0][groups], &record);
    record.window_ends.push_back(static_cast<uint32_t>(record.symbols.size()));
    for (unsigned k = 0; k < kSparse; ++k) class_begin_[k] += window_.before[k + 1][groups];
  }
  for (unsigned k = 0; k < kSparse; ++k) members_[k] += class_begin_[k];
  for (const uint16_t coded : record.symbols) ++counts_[coded >> 8][coded & 0xFF];
  dense_elements_ += record.symbols.size();
  dense_blocks_ += record.symbols.empty() ? 0 : 1;
}

template <class W>
void ClassEncoder<W>::record_dense(const std::byte* old_words, const std::byte* new_words,
                                   size_t dense, BlockRecord<W>* record) {
  const size_t begin = record->symbols.size();
  record->symbols.resize(begin + dense);
  uint16_t* out = record->symbols.data() + begin;
  const WordRanks<W> ranks = ranks_;
  const ExponentField field = field_;
  const uint8_t* const by_exponent = by_exponent_.data();
  const uint16_t* const positions = window_.lowest;
  for (size_t j = 0; j < dense; ++j) {
    const W from = load(old_words, positions[j]);
    const auto step = static_cast<W>(ranks.step(from, load(new_words, positions[j])));
    const auto small = static_cast<W>(step + kExactSteps);
    unsigned symbol;
    if (small <= 2 * kExactSteps) {
      symbol = kSmallSymbols[small];
    } else {
      symbol = step_symbol(step).symbol;
      record->wide_steps.push_back(step);
    }
    out[j] = static_cast<uint16_t>(by_exponent[field.of(from)] << 8 | symbol);
  }
}

// Sorts the window's changes by class first: which class a change is in follows no pattern, and a
// branch on it would cost more than the rest.
template <class W>
void ClassEncoder<W>::record_sparse(ChangeRange changes, uint32_t first_position,
                                    BlockRecord<W>* record) {
  std::array<size_t, kMaxCuts + 1> counts{};
  const int64_t threshold = params_.threshold;
  for (uint64_t i = 0; i < changes.count(); ++i) {
    const int64_t exponent = field_.of(load(change_.replaced_words.data(), changes.begin + i));
    const auto of =
        static_cast<size_t>(std::clamp<int64_t>(exponent - threshold + 1, 0, int64_t{kSparse}));
    sorted_[of][counts[of]++] = static_cast<uint16_t>(i);
  }
  for (unsigned k = 0; k < kSparse; ++k) {
    const uint64_t* const members = window_.members[k + 1];
    const uint16_t* const before = window_.before[k + 1];
    uint64_t next_rank = next_rank_[k];
    for (size_t i = 0; i < counts[k + 1]; ++i) {
      const uint64_t index = changes.begin + sorted_[k + 1][i];
      const size_t position = change_.positions[index] - first_position;
      const size_t group = position / kGroupElements;
      const uint64_t below = (uint64_t{1} << (position % kGroupElements)) - 1;
      const uint64_t rank =
          class_begin_[k] + before[group] + static_cast<uint64_t>(ones(members[group] & below));
      auto coded = static_cast<uint32_t>(rank - next_rank);
      next_rank = rank + 1;
      const W to = load(change_.changed_words.data(), index);
      const auto step = static_cast<W>(ranks_.step(load(change_.replaced_words.data(), index), to));
      coded |= step == static_cast<W>(~W{0}) ? kDownBit : 0;
      if (static_cast<W>(step + 1) > 2 || step == 0) {
        coded |= kExceptionBit;
        record->exceptions[k].push_back(to);
      }
      record->gaps[k].push_back(coded);
    }
    next_rank_[k] = next_rank;
    changed_[k] += counts[k + 1];
  }
}

// The Rice parameter of geometric gaps: the least s with (1 - p)^(2^s) <= (sqrt(5) - 1) / 2, that
// is 2^s >= 0.4812 (1 / p - 1 / 2) (A. Kiely, Selecting the Golomb Parameter in Rice Coding, 2004).
unsigned rice_parameter(uint64_t members, uint64_t changed) {
  if (changed == 0) return 0;
  unsigned s = 0;
  while (s < 24 && (changed << s) * 20'000 < 4'812 * (2 * members - changed)) ++s;
  return s;
}

template <class W>
void ClassEncoder<W>::choose_params() {
  for (unsigned k = 0; k < kSparse; ++k)
    params_.rice_bits[k] = static_cast<uint8_t>(rice_parameter(members_[k], changed_[k]));
  const uint64_t mean = dense_blocks_ == 0 ? 0 : dense_elements_ / dense_blocks_;
  params_.log2_lanes = mean < 8'192 ? 2 : mean < 65'536 ? 4 : 5;
  choose_tables();
}

// The base that suits all tables best; then sends those that are worth it, and all that escapes
// would be needed in.
template <class W>
void ClassEncoder<W>::choose_tables() {
  constexpr unsigned kWordBits = 8 * sizeof(W);
  uint64_t least = ~uint64_t{0};
  for (unsigned base = 0; base < kStandardTables; ++base) {
    ClassParams candidate;
    candidate.base_table = base;
    uint64_t cost = 0;
    for (unsigned d = 0; d < params_.tables.size(); ++d)
      cost += coded_cost(counts_[d], standard_table(candidate.standard_of(d)), kWordBits);
    if (cost < least) {
      least = cost;
      params_.base_table = base;
    }
  }
  for (unsigned d = 0; d < params_.tables.size(); ++d) {
    if (std::ranges::all_of(counts_[d], [](uint32_t count) { return count == 0; })) continue;
    const StepTable own = scaled_table(counts_[d]);
    const uint64_t standard =
        coded_cost(counts_[d], standard_table(params_.standard_of(d)), kWordBits);
    if (coded_cost(counts_[d], own, kWordBits) + (sent_table_bits(own) << 8) < standard)
      params_.tables[d] = own;
  }
}

struct Range {
  uint16_t frequency = 0;
  uint16_t begin = 0;
};
using Ranges = std::array<Range, kStepSymbols>;
Ranges ranges_of(const StepTable& table) {
  Ranges ranges;
  uint32_t begin = 0;
  for (unsigned s = 0; s < kStepSymbols; ++s) {
    ranges[s] = {table.of[s], static_cast<uint16_t>(begin)};
    begin += table.of[s];
  }
  return ranges;
}

void put_unary(uint64_t quotient, BitWriter* bits) {
  for (; quotient >= 32; quotient -= 32) bits->put(0, 32);
  bits->put(uint64_t{1} << quotient, static_cast<unsigned>(quotient) + 1);
}

using TableRanges = std::array<Ranges, kTables>;

// A block's symbols entropy coded.
struct CodedSymbols {
  std::array<uint32_t, 1U << kMaxLog2Lanes> states;
  std::span<const uint16_t> words;
  uint64_t raw_bits = 0;
  bool escapes = false;  // whether the tables lack any of the symbols
};

// From the last symbol to the first, writing words downwards (kernels/rans.h).
template <class W>
CodedSymbols code_symbols(const BlockRecord<W>& record, const TableRanges& ranges,
                          unsigned log2_lanes) {
  std::vector<uint16_t>& words = scratch<W>().rans_words;
  if (words.size() < record.symbols.size() + 1) words.resize(record.symbols.size() + 1);
  uint16_t* const end = words.data() + words.size();
  uint16_t* word = end;
  CodedSymbols coded;
  coded.states.fill(1U << kRansLog2Low);
  const uint32_t lane_mask = (1U << log2_lanes) - 1;
  for (size_t window = record.window_ends.size(); window-- > 0;) {
    const uint32_t begin = window == 0 ? 0 : record.window_ends[window - 1];
    for (uint32_t j = record.window_ends[window]; j-- > begin;) {
      const Ranges& table = ranges[record.symbols[j] >> 8];
      const unsigned symbol = record.symbols[j] & 0xFF;
      Range range = table[symbol];
      if (range.frequency == 0) {
        range = table[kEscapeSymbol];
        coded.escapes = true;
        coded.raw_bits += 8 * sizeof(W) - raw_bits_of(symbol);
      }
      uint32_t& state = coded.states[(j - begin) & lane_mask];
      uint32_t x = state;
      const bool full = x >= uint64_t{range.frequency} << (32 - kLog2Total);
      word[-1] = static_cast<uint16_t>(x);
      word -= full ? 1 : 0;
      x >>= full ? 16 : 0;
      state = ((x / range.frequency) << kLog2Total) + x % range.frequency + range.begin;
    }
  }
  for (const W step : record.wide_steps) coded.raw_bits += step_symbol(step).raw_bits;
  coded.words = {word, end};
  return coded;
}

template <class W>
void put_sparse(const BlockRecord<W>& record, const ClassParams& params, BitWriter* bits) {
  for (unsigned k = 0; k < kSparse; ++k)
    for (const uint32_t gap : record.gaps[k])
      put_unary((gap & kGapMask) >> params.rice_bits[k], bits);
  for (unsigned k = 0; k < kSparse; ++k) {
    const unsigned rice = params.rice_bits[k];
    for (const uint32_t gap : record.gaps[k]) bits->put(gap & ((1U << rice) - 1), rice);
  }
  for (const auto& gaps : record.gaps)
    for (const uint32_t gap : gaps) bits->put((gap & kDownBit) != 0 ? 1 : 0, 1);
  uint32_t ordinal = 0;
  for (unsigned k = 0; k < kSparse; ++k) {
    auto exception = record.exceptions[k].begin();
    for (const uint32_t gap : record.gaps[k]) {
      if ((gap & kExceptionBit) != 0) {
        bits->put(ordinal, 32);
        bits->put_long(*exception++, 8 * sizeof(W));
      }
      ++ordinal;
    }
  }
}

template <class W>
void put_wide_step(W step, BitWriter* bits) {
  const StepSymbol parts = step_symbol(step);
  bits->put_long(parts.raw, parts.raw_bits);
}

template <class W>
void put_raw_bits(const BlockRecord<W>& record, const TableRanges& ranges, bool escapes,
                  BitWriter* bits) {
  if (!escapes) {
    for (const W step : record.wide_steps) put_wide_step(step, bits);
    return;
  }
  auto wide = record.wide_steps.begin();
  for (const uint16_t coded : record.symbols) {
    const unsigned symbol = coded & 0xFF;
    const bool is_wide = symbol >= kFirstWideSymbol;
    if (ranges[coded >> 8][symbol].frequency == 0) {
      bits->put_long(is_wide ? *wide : step_of_symbol<W>(symbol, 0), 8 * sizeof(W));
    } else if (is_wide) {
      put_wide_step(*wide, bits);
    }
    if (is_wide) ++wide;
  }
}

template <class W>
void ClassEncoder<W>::write_block(const BlockRecord<W>& record, std::vector<std::byte>* out) const {
  TableRanges ranges;
  for (unsigned d = 0; d < params_.tables.size(); ++d)
    ranges[d] =
        ranges_of(params_.tables[d] ? *params_.tables[d] : standard_table(params_.standard_of(d)));
  const CodedSymbols coded = code_symbols(record, ranges, params_.log2_lanes);
  ClassBlockHead head;
  head.dense = !record.symbols.empty();
  head.words = static_cast<uint32_t>(coded.words.size());
  uint64_t other_bits = coded.raw_bits;
  for (unsigned k = 0; k < kSparse; ++k) {
    const unsigned rice = params_.rice_bits[k];
    head.counts[k] = static_cast<uint32_t>(record.gaps[k].size());
    for (const uint32_t gap : record.gaps[k]) head.high_bits += ((gap & kGapMask) >> rice) + 1;
    head.exceptions += static_cast<uint32_t>(record.exceptions[k].size());
    other_bits +=
        record.gaps[k].size() * (rice + 1) + record.exceptions[k].size() * (32 + 8 * sizeof(W));
  }
  out->resize(kMaxBlockHeadBytes + 4 * params_.lanes() + 2 * align_up(coded.words.size(), 2) +
              (head.high_bits + other_bits) / 8 + 2 * BitWriter::kTailBytes);
  BitWriter start(out->data());
  write_block_head(head, kSparse, &start);
  std::byte* at = out->data() + align_up(static_cast<uint64_t>(start.end() - out->data()), 4);
  if (head.dense) {
    std::memcpy(at, coded.states.data(), 4 * params_.lanes());
    at += 4 * params_.lanes();
    std::memcpy(at, coded.words.data(), 2 * coded.words.size());
    at += 2 * align_up(coded.words.size(), 2);
  }
  BitWriter bits(at);
  put_sparse(record, params_, &bits);
  put_raw_bits(record, ranges, coded.escapes, &bits);
  out->resize(align_up(static_cast<uint64_t>(bits.end() - out->data()), 4));
}

}  // namespace

EncodedTile encode_classes(const TileChange& change) {
  return with_word_type(dtype_info(change.dtype).word_bytes,
                        [&](auto word) { return ClassEncoder<decltype(word)>(change).encode(); });
}

}  // namespace siltstone
