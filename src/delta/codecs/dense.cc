// Codec 3: the block's whole new words as byte planes. Wins when most elements changed by steps
// that carry no pattern.
#include "base/bytes.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/codecs.h"
#include "delta/codecs/guess.h"
#include "delta/codecs/stream.h"

namespace siltstone {
namespace {

size_t header_bytes(unsigned word_bytes) {
  return 4 + size_t{4} * word_bytes;
}

// Spreads plane `plane` over the words, or gathers it from them.
template <class W>
void put_plane(const std::byte* from, uint64_t elements, unsigned plane, std::byte* words) {
  for (uint64_t i = 0; i < elements; ++i) words[i * sizeof(W) + plane] = from[i];
}
template <class W>
void take_plane(const std::byte* words, uint64_t elements, unsigned plane, std::byte* to) {
  for (uint64_t i = 0; i < elements; ++i) to[i] = words[i * sizeof(W) + plane];
}

// Reused from block to block; at most 2^24 bytes, one plane of the largest block.
std::vector<std::byte>& plane_buffer() {
  thread_local std::vector<std::byte> buffer;
  return buffer;
}

class DenseDecoder : public BlockDecoder {
 public:
  explicit DenseDecoder(const TileCode& code) : code_(code) {}

  Result<uint64_t> apply(uint64_t block, std::span<std::byte> words) const override {
    const ByteSpan payload = code_.blocks[block];
    const unsigned word_bytes = dtype_info(code_.dtype).word_bytes;
    const uint64_t elements = words.size() / word_bytes;
    const size_t head = header_bytes(word_bytes);
    SILT_ASSIGN(const uint64_t changed, read_changed(block, payload, elements, head));
    std::vector<std::byte>& buffer = plane_buffer();
    buffer.resize(elements);
    ByteSpan rest = payload.subspan(head);
    for (unsigned plane = 0; plane < word_bytes; ++plane) {
      const auto stored = load_le<uint32_t>(payload.data() + 4 + size_t{4} * plane);
      if (stored > rest.size())
        return corrupt_block(block, "plane " + std::to_string(plane) + " of " +
                                        std::to_string(stored) + " bytes, " +
                                        std::to_string(rest.size()) + " left");
      if (Status read = read_stream(rest.first(stored), buffer, "plane"); !read)
        return corrupt_block(block, read.error().message);
      rest = rest.subspan(stored);
      with_word_type(word_bytes, [&](auto word) {
        put_plane<decltype(word)>(buffer.data(), elements, plane, words.data());
      });
    }
    SILT_TRY(check_padding(block, rest));
    return changed;
  }

 private:
  const TileCode& code_;
};

class DenseCodec : public Codec {
 public:
  uint16_t id() const override { return 3; }
  std::string_view name() const override { return "dense"; }
  Need need() const override { return Need::kNothing; }

  uint64_t estimate_bytes(const TileChange& change) const override {
    return guess_dense_bytes(change);
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    const unsigned word_bytes = dtype_info(change.dtype).word_bytes;
    EncodedTile tile;
    tile.blocks.resize(change.blocks());
    std::vector<std::byte>& buffer = plane_buffer();
    for (uint64_t block = 0; block < change.blocks(); ++block) {
      const uint64_t changed = block_changes(change, block).count();
      if (changed == 0) continue;
      const uint64_t elements = block_elements(change.elements, change.log2_block, block);
      const std::byte* words = change.new_words.data() + (block << change.log2_block) * word_bytes;
      std::vector<std::byte>& payload = tile.blocks[block];
      payload.resize(header_bytes(word_bytes));
      store_le(payload.data(), static_cast<uint32_t>(changed));
      buffer.resize(elements);
      for (unsigned plane = 0; plane < word_bytes; ++plane) {
        with_word_type(word_bytes, [&](auto word) {
          take_plane<decltype(word)>(words, elements, plane, buffer.data());
        });
        SILT_ASSIGN(const uint32_t stored, append_stream(buffer, &payload));
        store_le(payload.data() + 4 + size_t{4} * plane, stored);
      }
    }
    return tile;
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    SILT_TRY(check_no_params(code, name()));
    return std::unique_ptr<BlockDecoder>(std::make_unique<DenseDecoder>(code));
  }
};

}  // namespace

const Codec& dense_codec() {
  static const DenseCodec codec;
  return codec;
}

}  // namespace siltstone
