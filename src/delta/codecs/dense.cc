// Codecs 3 and 5: the whole block as byte planes, for when most elements changed. `dense` codes the
// new words alone, `dense_delta` the steps from the old ones.
#include "base/bytes.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/codecs.h"
#include "delta/codecs/dense_words.h"
#include "delta/codecs/guess.h"
#include "delta/codecs/stream.h"

namespace siltstone {
namespace {

size_t header_bytes(unsigned word_bytes) {
  return 4 + size_t{4} * word_bytes;
}

// Reused from block to block; at most 2^24 words, those of the largest block.
std::vector<std::byte>& plane_buffer() {
  thread_local std::vector<std::byte> buffer;
  return buffer;
}

template <class W, class Coding>
class DenseDecoder : public BlockDecoder {
 public:
  explicit DenseDecoder(const TileCode& code) : code_(code) {}

  Result<uint64_t> apply(uint64_t block, std::span<std::byte> words,
                         std::span<const std::byte>) const override {
    const ByteSpan payload = code_.blocks[block];
    const uint64_t elements = words.size() / sizeof(W);
    const size_t head = header_bytes(sizeof(W));
    SILT_ASSIGN(const uint64_t changed, read_changed(block, payload, elements, head));
    std::vector<std::byte>& buffer = plane_buffer();
    if (buffer.size() < words.size()) buffer.resize(words.size());
    std::array<const std::byte*, sizeof(W)> planes;
    ByteSpan rest = payload.subspan(head);
    for (unsigned plane = 0; plane < sizeof(W); ++plane) {
      const auto stored = load_le<uint32_t>(payload.data() + 4 + size_t{4} * plane);
      if (stored > rest.size())
        return corrupt_block(block, "plane " + std::to_string(plane) + " of " +
                                        std::to_string(stored) + " bytes, " +
                                        std::to_string(rest.size()) + " left");
      const MutByteSpan room = MutByteSpan(buffer).subspan(plane * elements, elements);
      const Result<ByteSpan> bytes = view_stream(rest.first(stored), room, "plane");
      if (!bytes) return corrupt_block(block, bytes.error().message);
      planes[plane] = bytes->data();
      rest = rest.subspan(stored);
    }
    SILT_TRY(check_padding(block, rest));
    join_planes<W>(Coding(dtype_info(code_.dtype).order), planes, elements, words.data());
    return changed;
  }

 private:
  const TileCode& code_;
};

template <class W, class Coding>
Status encode_block(const TileChange& change, uint64_t block, std::vector<std::byte>* payload) {
  const uint64_t changed = block_changes(change, block).count();
  const uint64_t elements = block_elements(change.elements, change.log2_block, block);
  const uint64_t begin = (block << change.log2_block) * sizeof(W);
  const WordOrder order = dtype_info(change.dtype).order;
  std::vector<std::byte>& buffer = plane_buffer();
  if (buffer.size() < elements * sizeof(W)) buffer.resize(elements * sizeof(W));
  split_planes<W>(Coding(order), change.old_words.data() + begin, change.new_words.data() + begin,
                  elements, buffer.data());
  payload->reserve(header_bytes(sizeof(W)) + elements * sizeof(W));
  payload->resize(header_bytes(sizeof(W)));
  store_le(payload->data(), static_cast<uint32_t>(changed));
  // Masks, counters and packed integers may repeat; words of floating-point numbers do not.
  const Search search =
      order == WordOrder::kSignMagnitude ? Search::kFrequencies : Search::kRepeats;
  for (unsigned plane = 0; plane < sizeof(W); ++plane) {
    const ByteSpan bytes = ByteSpan(buffer).subspan(plane * elements, elements);
    SILT_ASSIGN(const uint32_t stored, append_stream(bytes, search, payload));
    store_le(payload->data() + 4 + size_t{4} * plane, stored);
  }
  return {};
}

template <template <class> class Coding>
class DenseCodec : public Codec {
 public:
  DenseCodec(uint16_t id, std::string_view name, Need need) : id_(id), name_(name), need_(need) {}
  uint16_t id() const override { return id_; }
  std::string_view name() const override { return name_; }
  Need need() const override { return need_; }

  uint64_t estimate_bytes(const TileChange& change) const override {
    return with_word_type(dtype_info(change.dtype).word_bytes, [&](auto word) {
      using W = decltype(word);
      const Coding<W> coding(dtype_info(change.dtype).order);
      return guess_plane_bytes(change, [&](uint64_t begin, uint64_t n, std::byte* planes) {
        split_planes<W>(coding, change.old_words.data() + begin * sizeof(W),
                        change.new_words.data() + begin * sizeof(W), n, planes);
      });
    });
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    EncodedTile tile;
    tile.blocks.resize(change.blocks());
    for (uint64_t block = 0; block < change.blocks(); ++block) {
      if (block_changes(change, block).count() == 0) continue;
      SILT_TRY(with_word_type(dtype_info(change.dtype).word_bytes, [&](auto word) {
        using W = decltype(word);
        return encode_block<W, Coding<W>>(change, block, &tile.blocks[block]);
      }));
    }
    return tile;
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    SILT_TRY(check_no_params(code, name()));
    return with_word_type(dtype_info(code.dtype).word_bytes,
                          [&](auto word) -> std::unique_ptr<BlockDecoder> {
                            using W = decltype(word);
                            return std::make_unique<DenseDecoder<W, Coding<W>>>(code);
                          });
  }

 private:
  uint16_t id_;
  std::string_view name_;
  Need need_;
};

}  // namespace

const Codec& dense_codec() {
  static const DenseCodec<NewWords> codec(3, "dense", Need::kNothing);
  return codec;
}

const Codec& dense_delta_codec() {
  static const DenseCodec<WordSteps> codec(5, "dense_delta", Need::kAllWords);
  return codec;
}

}  // namespace siltstone
