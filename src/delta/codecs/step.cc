// Codec 2: how far each changed word moved in the order of its dtype, and the gaps between them.
//
// Every change is one token byte, which zstd's entropy stage brings near its information content:
// gap in half octaves (the bits below that are close to uniform at any density, and go raw), and
// whether the word moved by one up, one down, or more. Bits of larger moves go to a second stream
// (their size) and to the raw bits.
#include <array>
#include <bit>

#include "base/bytes.h"
#include "base/try.h"
#include "delta/codecs/bits.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/codecs.h"
#include "delta/codecs/guess.h"
#include "delta/codecs/stream.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {
namespace {

constexpr size_t kPayloadHeaderBytes = 12;  // changes, bytes of tokens, bytes of sizes
constexpr unsigned kGapClasses = 48;        // 2 * 24: gaps stay below 2^24

constexpr unsigned kDown = 1;  // bits of a token
constexpr unsigned kByMore = 2;

struct GapClass {
  uint32_t base;
  uint8_t raw_bits;
};

constexpr std::array<GapClass, kGapClasses> kGaps = [] {
  std::array<GapClass, kGapClasses> gaps{};
  gaps[1].base = 1;
  for (unsigned i = 2; i < kGapClasses; ++i) {
    gaps[i].raw_bits = static_cast<uint8_t>(i / 2 - 1);
    gaps[i].base = (2 + i % 2) << gaps[i].raw_bits;
  }
  return gaps;
}();

unsigned gap_class(uint32_t gap) {
  if (gap < 2) return gap;
  const auto octave = static_cast<unsigned>(std::bit_width(gap)) - 1;
  return 2 * octave + ((gap >> (octave - 1)) & 1);
}

// Reused from block to block; bounded by the elements of the largest block.
struct Scratch {
  std::vector<std::byte> tokens;
  std::vector<std::byte> sizes;
  std::vector<std::byte> bits;
};
Scratch& scratch() {
  thread_local Scratch buffers;
  return buffers;
}

// What encoding a block gives; the views are into scratch().
struct EncodedBlock {
  ByteSpan tokens;
  ByteSpan sizes;
  ByteSpan bits;
};

void grow(std::vector<std::byte>* buffer, size_t size_bytes) {
  if (buffer->size() < size_bytes) buffer->resize(size_bytes);
}

template <class W>
EncodedBlock encode_block(const TileChange& change, uint64_t block, Scratch* buffers) {
  constexpr size_t kMostBitsBytes = 11;  // of one change: 22 + 62 bits
  const uint64_t changed = block_changes(change, block).count();
  grow(&buffers->tokens, changed);
  grow(&buffers->sizes, changed + 1);
  grow(&buffers->bits, changed * kMostBitsBytes + BitWriter::kTailBytes);
  const WordRanks<W> ranks(dtype_info(change.dtype).order);
  BitWriter bits(buffers->bits.data());
  std::byte* token = buffers->tokens.data();
  std::byte* size_out = buffers->sizes.data();
  uint32_t expected = 0;  // position of a change with gap 0
  for_each_change(change, block, [&](uint32_t position, uint64_t index) {
    const uint32_t gap = position - expected;
    expected = position + 1;
    const unsigned gap_kind = gap_class(gap);
    const uint64_t raw_gap = gap - kGaps[gap_kind].base;
    const auto from = load_le<W>(change.replaced_words.data() + index * sizeof(W));
    const auto to = load_le<W>(change.changed_words.data() + index * sizeof(W));
    // Without a branch: neither direction nor distance follows a pattern.
    const auto step = static_cast<W>(ranks.step(from, to));
    const unsigned down = static_cast<unsigned>(step >> (8 * sizeof(W) - 1));
    const auto far =
        static_cast<W>(static_cast<W>(step ^ static_cast<W>(W{0} - W(down))) + W(down) - 1);
    const unsigned more = far != 0 ? 1 : 0;
    *token++ = static_cast<std::byte>(gap_kind << 2 | more * kByMore | down * kDown);
    const auto size = static_cast<unsigned>(std::bit_width(static_cast<W>(far | 1))) - 1;
    *size_out = static_cast<std::byte>(size);
    size_out += more;
    const uint64_t low = far & ((uint64_t{1} << size) - 1);
    if constexpr (sizeof(W) <= 4) {
      bits.put(raw_gap | low << kGaps[gap_kind].raw_bits, kGaps[gap_kind].raw_bits + size);
    } else {
      bits.put(raw_gap, kGaps[gap_kind].raw_bits);
      bits.put_long(low, size);
    }
  });
  return {{buffers->tokens.data(), token},
          {buffers->sizes.data(), size_out},
          {buffers->bits.data(), bits.end()}};
}

// A payload taken apart and its streams expanded into scratch().
struct OpenBlock {
  uint64_t changed = 0;
  ByteSpan tokens;
  ByteSpan sizes;
  ByteSpan bits;
};

Result<OpenBlock> open_block(uint64_t block, ByteSpan payload, uint64_t elements,
                             Scratch* buffers) {
  OpenBlock open;
  SILT_ASSIGN(open.changed, read_changed(block, payload, elements, kPayloadHeaderBytes));
  const auto token_bytes = load_le<uint32_t>(payload.data() + 4);
  const auto size_bytes = load_le<uint32_t>(payload.data() + 8);
  const ByteSpan streams = payload.subspan(kPayloadHeaderBytes);
  if (uint64_t{token_bytes} + size_bytes > streams.size())
    return corrupt_block(block, "streams of " + std::to_string(token_bytes) + " and " +
                                    std::to_string(size_bytes) + " bytes in a payload of " +
                                    std::to_string(payload.size()));
  buffers->tokens.resize(open.changed);
  const Result<ByteSpan> tokens = view_stream(streams.first(token_bytes), buffers->tokens, "token");
  if (!tokens) return corrupt_block(block, tokens.error().message);
  uint64_t moves_by_more = 0;
  for (const std::byte token : *tokens) moves_by_more += static_cast<uint8_t>(token) >> 1 & 1;
  buffers->sizes.resize(moves_by_more);
  const Result<ByteSpan> sizes =
      view_stream(streams.subspan(token_bytes, size_bytes), buffers->sizes, "size");
  if (!sizes) return corrupt_block(block, sizes.error().message);
  const ByteSpan bits = streams.subspan(uint64_t{token_bytes} + size_bytes);
  buffers->bits.assign(bits.begin(), bits.end());
  buffers->bits.resize(bits.size() + BitReader::kTailBytes);
  open.tokens = *tokens;
  open.sizes = *sizes;
  open.bits = ByteSpan(buffers->bits).first(bits.size());
  return open;
}

// The distance of a move by more than one: 2 to 2^(bits of W - 1).
template <class W>
Result<W> read_far_move(uint64_t block, unsigned size, bool down, BitReader* bits) {
  constexpr unsigned kMaxSize = 8 * sizeof(W) - 2;
  if (size > kMaxSize)
    return corrupt_block(block, "a step of size " + std::to_string(size) + ", at most " +
                                    std::to_string(kMaxSize) + " possible");
  const uint64_t far = (uint64_t{1} << size) | bits->get_long(size);
  const auto distance = static_cast<W>(far + 1);
  if (distance == WordRanks<W>::kTop && !down)
    return corrupt_block(block, "a step of half the range must be downward");
  return distance;
}

template <class W>
Status apply_block(uint64_t block, const OpenBlock& open, WordOrder order, std::byte* words,
                   uint64_t elements) {
  const WordRanks<W> ranks(order);
  BitReader bits(open.bits);
  const std::byte* size = open.sizes.data();
  uint64_t position = 0;
  for (const std::byte token_byte : open.tokens) {
    const auto token = static_cast<unsigned>(token_byte);
    const unsigned gap_kind = token >> 2;
    if (gap_kind >= kGapClasses)
      return corrupt_block(block, "token " + std::to_string(token) + " has no meaning");
    position += kGaps[gap_kind].base + bits.get(kGaps[gap_kind].raw_bits);
    if (position >= elements)
      return corrupt_block(block, "a gap leads to element " + std::to_string(position) + " of " +
                                      std::to_string(elements));
    const bool down = (token & kDown) != 0;
    W distance = 1;
    if ((token & kByMore) != 0) {
      SILT_ASSIGN(distance, read_far_move<W>(block, static_cast<unsigned>(*size++), down, &bits));
    }
    std::byte* word = words + position * sizeof(W);
    const W step = down ? W(W{0} - distance) : distance;
    store_le(word, ranks.add(load_le<W>(word), step));
    ++position;
  }
  if (bits.overrun())
    return corrupt_block(block, std::to_string(bits.used_bits()) + " bits wanted, " +
                                    std::to_string(open.bits.size() * 8) + " there");
  const uint64_t whole_bytes = bits.used_bits() / 8;
  const unsigned rest = bits.used_bits() % 8;
  if (rest != 0 && static_cast<unsigned>(open.bits[whole_bytes]) >> rest != 0)
    return corrupt_block(block, "padding that is not zero");
  return check_padding(block, open.bits.subspan(whole_bytes + (rest != 0 ? 1 : 0)));
}

class StepDecoder : public BlockDecoder {
 public:
  explicit StepDecoder(const TileCode& code) : code_(code) {}

  Result<uint64_t> apply(uint64_t block, std::span<std::byte> words,
                         std::span<const std::byte>) const override {
    const DTypeInfo& info = dtype_info(code_.dtype);
    const uint64_t elements = words.size() / info.word_bytes;
    SILT_ASSIGN(const OpenBlock open, open_block(block, code_.blocks[block], elements, &scratch()));
    SILT_TRY(with_word_type(info.word_bytes, [&](auto word) {
      return apply_block<decltype(word)>(block, open, info.order, words.data(), elements);
    }));
    return open.changed;
  }

 private:
  const TileCode& code_;
};

class StepCodec : public Codec {
 public:
  uint16_t id() const override { return 2; }
  std::string_view name() const override { return "step"; }
  Need need() const override { return Need::kChangedWords; }

  uint64_t estimate_bytes(const TileChange& change) const override {
    return guess_step_bytes(change);
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    const Search search = change.effort == Effort::kFast ? Search::kNone : Search::kRepeats;
    EncodedTile tile;
    tile.blocks.resize(change.blocks());
    Scratch& buffers = scratch();
    for (uint64_t block = 0; block < change.blocks(); ++block) {
      const uint64_t changed = block_changes(change, block).count();
      if (changed == 0) continue;
      const EncodedBlock encoded = with_word_type(
          dtype_info(change.dtype).word_bytes,
          [&](auto word) { return encode_block<decltype(word)>(change, block, &buffers); });
      std::vector<std::byte>& payload = tile.blocks[block];
      payload.reserve(kPayloadHeaderBytes + encoded.tokens.size() + encoded.sizes.size() +
                      encoded.bits.size());
      payload.resize(kPayloadHeaderBytes);
      store_le(payload.data(), static_cast<uint32_t>(changed));
      SILT_ASSIGN(const uint32_t token_bytes, append_stream(encoded.tokens, search, &payload));
      store_le(payload.data() + 4, token_bytes);
      SILT_ASSIGN(const uint32_t size_bytes, append_stream(encoded.sizes, search, &payload));
      store_le(payload.data() + 8, size_bytes);
      payload.insert(payload.end(), encoded.bits.begin(), encoded.bits.end());
    }
    return tile;
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    SILT_TRY(check_no_params(code, name()));
    return std::unique_ptr<BlockDecoder>(std::make_unique<StepDecoder>(code));
  }
};

}  // namespace

const Codec& step_codec() {
  static const StepCodec codec;
  return codec;
}

}  // namespace siltstone
