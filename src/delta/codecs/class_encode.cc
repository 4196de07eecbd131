// Two passes: the first sorts every change of the tile into its class and every dense element into
// a symbol, the second writes blocks with the parameters that the first one's counts ask for.
#include "delta/codecs/class_encode.h"

#include <algorithm>
#include <bit>

#include "delta/codecs/block_view.h"
#include "delta/codecs/class_record.h"
#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

constexpr uint64_t kSampledWindows = 16;
constexpr uint64_t kLeastSamples = 48;  // of an exponent, to judge it by

// Kept from tile to tile; bounded by the largest tile's elements.
template <class W>
struct Scratch {
  std::vector<ClassRecord<W>> blocks;
  ClassWindow window;
  std::array<std::array<uint16_t, kWindowElements>, kEncodedSparse + 1> sorted;  // changes by class
  std::array<W, kWindowElements> next;
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

template <class W>
class ClassEncoder {
 public:
  ClassEncoder(const TileChange& change, unsigned contexts)
      : change_(change),
        field_(exponent_field(change.dtype)),
        ranks_(dtype_info(change.dtype).order),
        buffers_(scratch<W>()),
        window_(buffers_.window) {
    if (buffers_.blocks.size() < change.blocks()) buffers_.blocks.resize(change.blocks());
    params_.contexts = contexts;
  }

  EncodedTile encode() {
    params_.threshold = sampled_threshold();
    params_.rice_bits.assign(kEncodedSparse, 0);
    params_.tables.assign((field_.exponents == 1 ? 1 : kEncodedTables) * params_.contexts,
                          std::nullopt);
    counts_.assign(params_.tables.size(), {});
    cuts_ = params_.cuts(field_);
    coding_ = params_.coding(change_.dtype);
    for (uint64_t block = 0; block < change_.blocks(); ++block)
      if (block_changes(change_, block).count() != 0) record_block(block);
    choose_params();
    EncodedTile tile;
    tile.params = write_class_params(params_);
    tile.blocks.resize(change_.blocks());
    const ClassTables tables(params_);
    for (uint64_t block = 0; block < change_.blocks(); ++block)
      if (block_changes(change_, block).count() != 0)
        tile.blocks[block] = write_class_block(buffers_.blocks[block], params_, tables);
    return tile;
  }

 private:
  unsigned sampled_threshold() const;
  void record_block(uint64_t block);
  const std::byte* next_words(uint64_t first, size_t n, ChangeRange changes);
  void record_dense(uint64_t first, size_t n, ChangeRange changes, ClassRecord<W>* record);
  void record_sparse(ChangeRange changes, uint32_t first_position, ClassRecord<W>* record);
  void choose_params();
  void choose_tables();

  static W load(const std::byte* words, uint64_t index) {
    return load_le<W>(words + index * sizeof(W));
  }

  const TileChange& change_;
  const ExponentField field_;
  const WordRanks<W> ranks_;
  ClassParams params_;
  ClassCuts cuts_;
  Scratch<W>& buffers_;
  ClassWindow& window_;
  StepCoding coding_;
  std::array<uint64_t, kEncodedSparse> class_begin_{};  // members in the block's windows before
  std::array<uint64_t, kEncodedSparse> next_rank_{};    // of a change with gap 0
  std::array<uint64_t, kEncodedSparse> members_{};      // in all blocks
  std::array<uint64_t, kEncodedSparse> changed_{};
  std::vector<SymbolCounts> counts_;  // per dense table
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
  ClassRecord<W>& record = buffers_.blocks[block];
  record.clear();
  const uint64_t first = block << change_.log2_block;
  const uint64_t elements = block_elements(change_.elements, change_.log2_block, block);
  class_begin_.fill(0);
  next_rank_.fill(0);
  const std::byte* old_words = change_.old_words.data() + first * sizeof(W);
  uint64_t at = block_changes(change_, block).begin;
  uint64_t run = first / kRunElements;
  for (uint64_t begin = 0; begin < elements; begin += kWindowElements) {
    const size_t n = std::min<uint64_t>(kWindowElements, elements - begin);
    const std::byte* window_words = old_words + begin * sizeof(W);
    kernels().classify[std::countr_zero(sizeof(W))](window_words, n, cuts_, &window_);
    const size_t groups = ceil_div(n, kGroupElements);
    run = (first + begin) / kRunElements;
    const auto in_run = static_cast<uint32_t>((first + begin) % kRunElements);
    const uint64_t first_change = at;
    const auto positions = change_.positions.begin();
    at = static_cast<uint64_t>(
        std::lower_bound(positions + static_cast<ptrdiff_t>(at),
                         positions + static_cast<ptrdiff_t>(change_.run_ends[run]), in_run + n) -
        positions);
    const ChangeRange changes{first_change, at};
    const size_t dense = window_.before[0][groups];
    if (dense < n) record_sparse(changes, in_run, &record);
    if (dense > 0) record_dense(first + begin, n, changes, &record);
    record.window_ends.push_back(static_cast<uint32_t>(record.codes.size()));
    for (unsigned k = 0; k < kEncodedSparse; ++k) class_begin_[k] += window_.before[k + 1][groups];
  }
  for (unsigned k = 0; k < kEncodedSparse; ++k) members_[k] += class_begin_[k];
  for (const uint16_t code : record.codes)
    ++counts_[code / kRansTableSymbols][code % kRansTableSymbols];
  dense_elements_ += record.codes.size();
  dense_blocks_ += record.codes.empty() ? 0 : 1;
}

// The window's new words, made of old ones and changes, which are in the cache; reading them from
// memory would cost more than all else that is done with them.
template <class W>
const std::byte* ClassEncoder<W>::next_words(uint64_t first, size_t n, ChangeRange changes) {
  std::memcpy(buffers_.next.data(), change_.old_words.data() + first * sizeof(W), n * sizeof(W));
  const uint64_t in_run = first % kRunElements;
  for (uint64_t i = changes.begin; i < changes.end; ++i)
    buffers_.next[change_.positions[i] - in_run] = load(change_.changed_words.data(), i);
  return reinterpret_cast<const std::byte*>(buffers_.next.data());
}

template <class W>
void ClassEncoder<W>::record_dense(uint64_t first, size_t n, ChangeRange changes,
                                   ClassRecord<W>* record) {
  const size_t dense = window_.before[0][ceil_div(n, kGroupElements)];
  const size_t begin = record->codes.size();
  const size_t wide_begin = record->wide_steps.size();
  record->codes.resize(begin + dense + kStepSlack);
  record->wide_steps.resize(wide_begin + dense + kStepSlack);
  const uint64_t at = first * sizeof(W);
  const std::byte* const earlier =
      params_.contexts == 1 ? nullptr : change_.earlier_words.data() + at;
  const size_t wide = kernels().take_steps[std::countr_zero(sizeof(W))](
      coding_, change_.old_words.data() + at, earlier, next_words(first, n, changes), n, window_,
      record->codes.data() + begin,
      reinterpret_cast<std::byte*>(record->wide_steps.data() + wide_begin));
  record->codes.resize(begin + dense);
  record->wide_steps.resize(wide_begin + wide);
}

// Sorts the window's changes by class first: which class a change is in follows no pattern, and a
// branch on it would cost more than the rest.
template <class W>
void ClassEncoder<W>::record_sparse(ChangeRange changes, uint32_t first_position,
                                    ClassRecord<W>* record) {
  std::array<size_t, kMaxCuts + 1> counts{};
  const int64_t threshold = params_.threshold;
  for (uint64_t i = 0; i < changes.count(); ++i) {
    const int64_t exponent = field_.of(load(change_.replaced_words.data(), changes.begin + i));
    const auto of = static_cast<size_t>(
        std::clamp<int64_t>(exponent - threshold + 1, 0, int64_t{kEncodedSparse}));
    buffers_.sorted[of][counts[of]++] = static_cast<uint16_t>(i);
  }
  for (unsigned k = 0; k < kEncodedSparse; ++k) {
    const uint64_t* const members = window_.members[k + 1];
    const uint16_t* const before = window_.before[k + 1];
    uint64_t next_rank = next_rank_[k];
    for (size_t i = 0; i < counts[k + 1]; ++i) {
      const uint64_t index = changes.begin + buffers_.sorted[k + 1][i];
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
  for (unsigned k = 0; k < kEncodedSparse; ++k)
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
  struct Used {
    unsigned table;
    std::vector<CountedSymbol> symbols;
  };
  std::vector<Used> used;
  for (unsigned d = 0; d < params_.tables.size(); ++d)
    if (std::vector<CountedSymbol> symbols = counted_symbols(counts_[d]); !symbols.empty())
      used.push_back({d, std::move(symbols)});
  ClassParams candidate;
  candidate.contexts = params_.contexts;
  uint64_t least = ~uint64_t{0};
  for (; candidate.base_table < kStandardTables; ++candidate.base_table) {
    uint64_t cost = 0;
    for (auto at = used.begin(); at != used.end() && cost < least; ++at)
      cost += coded_cost(at->symbols, candidate.standard_of(at->table), kWordBits);
    if (cost >= least) continue;
    least = cost;
    params_.base_table = candidate.base_table;
  }
  for (const auto& [table, symbols] : used) {
    const StepTable own = scaled_table(counts_[table]);
    const uint64_t standard = coded_cost(symbols, params_.standard_of(table), kWordBits);
    if (coded_cost(symbols, own, kWordBits) + (sent_table_bits(own) << 8) < standard)
      params_.tables[table] = own;
  }
}

}  // namespace

EncodedTile encode_classes(const TileChange& change, unsigned contexts) {
  return with_word_type(dtype_info(change.dtype).word_bytes, [&](auto word) {
    return ClassEncoder<decltype(word)>(change, contexts).encode();
  });
}

}  // namespace siltstone
