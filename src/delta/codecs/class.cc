// Codec class: gaps counted inside classes of equal exponent of the old word, and an entropy-coded
// step for every word of the exponents that change often (docs/format/delta_pack.md, "class").
//
// An optimizer moves all weights by much the same amount, so whether rounding shows it depends on
// the size of the weight: each binade up halves the chance. Classes make that knowledge free, since
// the receiver has the old words.
//
// Codec momentum is the same with one thing more that the receiver may have: how each word moved in
// the version before. An optimizer's updates are alike from step to step, so words that are small
// enough to move often go on as they did.
#include <algorithm>
#include <bit>

#include "base/try.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/class_encode.h"
#include "delta/codecs/class_layout.h"
#include "delta/codecs/codecs.h"
#include "delta/codecs/guess.h"
#include "delta/kernels/kernels.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {
namespace {

// What all blocks of a section are decoded with.
struct ClassTile {
  ClassParams params;
  ClassCuts cuts;
  StepCoding coding;
  std::vector<SlotTable> slots;  // per dense table
};

// A sparse change by more than one.
struct Exception {
  uint32_t ordinal;
  uint64_t word;
};

// Of one thread; bounded by the elements of the largest block.
struct Scratch {
  ClassWindow window;
  std::vector<std::byte> bits;
  std::vector<uint32_t> ranks;  // of sparse changes inside their class, class by class
  std::vector<Exception> exceptions;
  uint16_t positions[kWindowElements];
  uint8_t tables[kWindowElements + kStepSlack];
  uint8_t symbols[kWindowElements];
};
Scratch& scratch() {
  thread_local Scratch buffers;
  return buffers;
}

template <class W>
class ClassBlockDecoder {
 public:
  // `earlier` may be null.
  ClassBlockDecoder(uint64_t block, const ClassTile& tile, WordOrder order, MutByteSpan words,
                    const std::byte* earlier)
      : block_(block),
        tile_(tile),
        ranks_(order),
        words_(words.data()),
        earlier_(earlier),
        elements_(words.size() / sizeof(W)),
        buffers_(scratch()) {}

  Result<uint64_t> decode(ByteSpan payload) {
    SILT_ASSIGN(open_, open_class_block(block_, payload, elements_, tile_.params));
    buffers_.bits.assign(open_.bits.begin(), open_.bits.end());
    buffers_.bits.resize(open_.bits.size() + BitReader::kTailBytes);
    SILT_TRY(read_sparse());
    for (unsigned lane = 0; lane < tile_.params.lanes() && open_.head.dense; ++lane)
      states_[lane] = load_le<uint32_t>(open_.states.data() + 4 * lane);
    words_left_ = open_.head.words;
    for (uint64_t begin = 0; begin < elements_; begin += kWindowElements) {
      SILT_TRY(decode_window(begin, std::min<uint64_t>(kWindowElements, elements_ - begin)));
    }
    SILT_TRY(check_end());
    return changed_;
  }

 private:
  Status read_sparse();
  Status read_exceptions();
  Status decode_window(uint64_t begin, size_t n);
  void decode_class(unsigned k, std::byte* words, size_t groups);
  Status decode_dense(std::byte* words, const std::byte* earlier, size_t n, size_t dense);
  Status check_end();
  Error corrupt(const std::string& problem) const { return corrupt_block(block_, problem); }

  const uint64_t block_;
  const ClassTile& tile_;
  const WordRanks<W> ranks_;
  std::byte* const words_;
  const std::byte* const earlier_;
  const uint64_t elements_;
  Scratch& buffers_;
  ClassBlock open_;
  uint64_t sign_at_ = 0;  // bit
  RawBits raw_{};
  uint32_t states_[1U << kMaxLog2Lanes] = {};
  uint64_t words_left_ = 0;
  uint64_t changed_ = 0;
  std::array<uint32_t, kMaxSparse> next_{};  // ordinal of the class's next change
  std::array<uint32_t, kMaxSparse> end_{};
  std::array<uint64_t, kMaxSparse> begin_{};  // members of the class in the windows before
  std::array<size_t, kMaxSparse> next_exception_{};
};

// Turns gaps into ranks.
template <class W>
Status ClassBlockDecoder<W>::read_sparse() {
  const ClassBlockHead& head = open_.head;
  const uint64_t total_bits = open_.bits.size() * 8;
  uint64_t low_at = head.high_bits;
  uint64_t low_bits = 0;
  for (unsigned k = 0; k < tile_.params.sparse(); ++k)
    low_bits += uint64_t{head.counts[k]} * tile_.params.rice_bits[k];
  sign_at_ = low_at + low_bits;
  raw_ = {buffers_.bits.data(),
          sign_at_ + open_.changes + uint64_t{head.exceptions} * (32 + 8 * sizeof(W)), total_bits};
  if (raw_.at > total_bits)
    return corrupt("parts of " + std::to_string(raw_.at) + " bits in " +
                   std::to_string(total_bits));
  buffers_.ranks.resize(open_.changes);
  const std::byte* bits = buffers_.bits.data();
  uint64_t high_at = 0;
  uint32_t ordinal = 0;
  for (unsigned k = 0; k < tile_.params.sparse(); ++k) {
    const unsigned rice = tile_.params.rice_bits[k];
    const uint64_t low_mask = (uint64_t{1} << rice) - 1;
    next_[k] = ordinal;
    uint64_t rank = 0;
    for (uint32_t i = 0; i < head.counts[k]; ++i, ++ordinal) {
      uint64_t quotient = 0;
      for (;;) {
        const uint64_t window = load_le<uint64_t>(bits + high_at / 8) >> (high_at % 8);
        const auto zeros = static_cast<unsigned>(std::countr_zero(window | uint64_t{1} << 56));
        quotient += zeros;
        high_at += zeros;
        if (zeros < 56) break;
        if (high_at >= head.high_bits) return corrupt("the gaps are cut off");
      }
      if (++high_at > head.high_bits) return corrupt("the gaps are cut off");
      const uint64_t low = load_le<uint64_t>(bits + low_at / 8) >> (low_at % 8) & low_mask;
      low_at += rice;
      rank += (quotient << rice) + low;
      if (rank >= elements_) return corrupt("a gap leads out of the block");
      buffers_.ranks[ordinal] = static_cast<uint32_t>(rank++);
    }
    end_[k] = ordinal;
  }
  if (high_at != head.high_bits) return corrupt("gaps are left over");
  return read_exceptions();
}

template <class W>
Status ClassBlockDecoder<W>::read_exceptions() {
  const uint32_t count = open_.head.exceptions;
  buffers_.exceptions.clear();
  const std::byte* bits = buffers_.bits.data();
  uint64_t at = sign_at_ + open_.changes;
  const auto read = [&](unsigned width) {
    const uint64_t value = load_le<uint64_t>(bits + at / 8) >> (at % 8);
    at += width;
    return value & ((uint64_t{1} << width) - 1);
  };
  uint64_t least = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t ordinal = read(32);
    if (ordinal < least || ordinal >= open_.changes)
      return corrupt("exception for change " + std::to_string(ordinal) + " of " +
                     std::to_string(open_.changes));
    least = ordinal + 1;
    uint64_t word = read(8 * sizeof(W) > 32 ? 32 : 8 * sizeof(W));
    if (sizeof(W) == 8) word |= read(32) << 32;
    buffers_.exceptions.push_back({static_cast<uint32_t>(ordinal), word});
  }
  for (unsigned k = 0; k < tile_.params.sparse(); ++k) {
    const auto first =
        std::ranges::lower_bound(buffers_.exceptions, next_[k], {}, &Exception::ordinal);
    next_exception_[k] = static_cast<size_t>(first - buffers_.exceptions.begin());
  }
  return {};
}

template <class W>
void ClassBlockDecoder<W>::decode_class(unsigned k, std::byte* words, size_t groups) {
  const uint16_t* before = buffers_.window.before[k + 1];
  const uint64_t end_rank = begin_[k] + before[groups];
  const uint32_t first = next_[k];
  uint32_t last = first;
  while (last < end_[k] && buffers_.ranks[last] < end_rank) ++last;
  kernels().locate(buffers_.window.members[k + 1], before, buffers_.ranks.data() + first,
                   last - first, begin_[k], buffers_.positions);
  const std::byte* bits = buffers_.bits.data();
  for (uint32_t ordinal = first; ordinal < last; ++ordinal) {
    std::byte* word = words + buffers_.positions[ordinal - first] * sizeof(W);
    const uint64_t sign_at = sign_at_ + ordinal;
    const W down = static_cast<unsigned>(bits[sign_at / 8]) >> (sign_at % 8) & 1;
    store_le(word, ranks_.add(load_le<W>(word), static_cast<W>(1 - 2 * down)));
  }
  const std::vector<Exception>& exceptions = buffers_.exceptions;
  size_t& exception = next_exception_[k];
  for (; exception < exceptions.size() && exceptions[exception].ordinal < last; ++exception) {
    const uint16_t position = buffers_.positions[exceptions[exception].ordinal - first];
    store_le(words + position * sizeof(W), static_cast<W>(exceptions[exception].word));
  }
  next_[k] = last;
  begin_[k] = end_rank;
}

template <class W>
Status ClassBlockDecoder<W>::decode_dense(std::byte* words, const std::byte* earlier, size_t n,
                                          size_t dense) {
  if (dense == 0) return {};
  if (!open_.head.dense) return corrupt("it has dense words, its head says that it has none");
  const Kernels& kernel = kernels();
  constexpr int kWidth = std::countr_zero(sizeof(W));
  kernel.find_tables[kWidth](tile_.coding, words, earlier, n, buffers_.window, buffers_.tables);
  const RansInput input{tile_.slots.front().data(),
                        buffers_.tables,
                        dense,
                        tile_.params.log2_lanes,
                        open_.words.data() + 2 * (open_.head.words - words_left_),
                        words_left_};
  const size_t used = kernel.decode_symbols(input, states_, buffers_.symbols);
  if (used == kCutOff) return corrupt("its entropy-coded words are cut off");
  words_left_ -= used;
  const size_t changed = kernel.make_steps[kWidth](tile_.coding, words, earlier, n, buffers_.window,
                                                   buffers_.symbols, &raw_);
  if (changed == kCutOff) return corrupt("a step of more bits than there are");
  changed_ += changed;
  return {};
}

template <class W>
Status ClassBlockDecoder<W>::decode_window(uint64_t begin, size_t n) {
  std::byte* const words = words_ + begin * sizeof(W);
  const std::byte* const earlier = earlier_ == nullptr ? nullptr : earlier_ + begin * sizeof(W);
  kernels().classify[std::countr_zero(sizeof(W))](words, n, tile_.cuts, &buffers_.window);
  const size_t groups = ceil_div(n, kGroupElements);
  for (unsigned k = 0; k < tile_.params.sparse(); ++k) decode_class(k, words, groups);
  return decode_dense(words, earlier, n, buffers_.window.before[0][groups]);
}

// What an encoder left over would mean another base or damage.
template <class W>
Status ClassBlockDecoder<W>::check_end() {
  for (unsigned k = 0; k < tile_.params.sparse(); ++k)
    if (next_[k] != end_[k])
      return corrupt("changes of a class that has fewer words; is this the right base?");
  changed_ += open_.changes;
  if (words_left_ != 0) return corrupt("entropy-coded words are left over");
  for (unsigned lane = 0; lane < tile_.params.lanes() && open_.head.dense; ++lane)
    if (states_[lane] != 1U << kLog2StateLow)
      return corrupt("the entropy coder does not end as it began; is this the right base?");
  const uint64_t left = raw_.end - raw_.at;
  if (left >= 32) return corrupt(std::to_string(left) + " bits left over at the end");
  for (uint64_t at = raw_.at; at < raw_.end; ++at)
    if ((static_cast<unsigned>(open_.bits[at / 8]) >> (at % 8) & 1) != 0)
      return corrupt("padding that is not zero");
  if (changed_ == 0) return corrupt("a payload that changes no element");
  return {};
}

class ClassDecoder : public BlockDecoder {
 public:
  ClassDecoder(const TileCode& code, ClassTile tile) : code_(code), tile_(std::move(tile)) {}

  Result<uint64_t> apply(uint64_t block, std::span<std::byte> words,
                         std::span<const std::byte> earlier) const override {
    const DTypeInfo& info = dtype_info(code_.dtype);
    const bool looks_back = tile_.params.contexts > 1;
    if (looks_back && earlier.size() != words.size())
      return Error{Code::kInvalidArgument,
                   "block " + std::to_string(block) +
                       ": it can only be decoded beside the words of the version before"};
    return with_word_type(info.word_bytes, [&](auto word) {
      return ClassBlockDecoder<decltype(word)>(block, tile_, info.order, words,
                                               looks_back ? earlier.data() : nullptr)
          .decode(code_.blocks[block]);
    });
  }

 private:
  const TileCode& code_;
  ClassTile tile_;
};

Result<std::unique_ptr<BlockDecoder>> class_decoder(const TileCode& code, unsigned contexts) {
  ClassTile tile;
  const ExponentField field = exponent_field(code.dtype);
  SILT_ASSIGN(tile.params, read_class_params(code.params, field, contexts));
  tile.cuts = tile.params.cuts(field);
  tile.coding = tile.params.coding(code.dtype);
  tile.slots.resize(tile.params.tables.size());
  for (unsigned i = 0; i < tile.slots.size(); ++i)
    fill_slots(tile.params.table(i).of, &tile.slots[i]);
  return std::unique_ptr<BlockDecoder>(std::make_unique<ClassDecoder>(code, std::move(tile)));
}

class ClassCodec : public Codec {
 public:
  uint16_t id() const override { return 4; }
  std::string_view name() const override { return "class"; }
  Need need() const override { return Need::kAllWords; }
  bool fast() const override { return false; }

  uint64_t estimate_bytes(const TileChange& change) const override {
    return guess_class_bytes(change);
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    return encode_classes(change, 1);
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    return class_decoder(code, 1);
  }
};

class MomentumCodec : public Codec {
 public:
  uint16_t id() const override { return 6; }
  std::string_view name() const override { return "momentum"; }
  Need need() const override { return Need::kEarlierWords; }
  bool fast() const override { return false; }

  // An optimizer's steps save 5 to 9 %, which a sample could not tell from nothing. Where the last
  // step says nothing of the next one, the guess is too low and the section larger than one of
  // class.
  uint64_t estimate_bytes(const TileChange& change) const override {
    const uint64_t bytes = guess_class_bytes(change);
    return bytes - bytes / 16;
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    if (change.earlier_words.size() != change.old_words.size())
      return Error{Code::kUnsupported,
                   "codec momentum needs the words of the version before the last one"};
    return encode_classes(change, kMomentumContexts);
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    return class_decoder(code, kMomentumContexts);
  }
};

}  // namespace

const Codec& class_codec() {
  static const ClassCodec codec;
  return codec;
}

const Codec& momentum_codec() {
  static const MomentumCodec codec;
  return codec;
}

}  // namespace siltstone
