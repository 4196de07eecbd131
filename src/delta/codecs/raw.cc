// Codec 1: positions and new words, for tools and as the bound no other codec may exceed.
#include "base/bytes.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/codecs.h"

namespace siltstone {
namespace {

constexpr size_t kCountBytes = 4;
constexpr size_t kPositionBytes = 4;

class RawDecoder : public BlockDecoder {
 public:
  explicit RawDecoder(const TileCode& code) : code_(code) {}

  Result<uint64_t> apply(uint64_t block, std::span<std::byte> words,
                         std::span<const std::byte>) const override {
    const ByteSpan payload = code_.blocks[block];
    const unsigned word_bytes = dtype_info(code_.dtype).word_bytes;
    const uint64_t elements = words.size() / word_bytes;
    SILT_ASSIGN(const uint64_t changed, read_changed(block, payload, elements, kCountBytes));
    const uint64_t used = kCountBytes + changed * (kPositionBytes + word_bytes);
    if (used > payload.size())
      return corrupt_block(block, std::to_string(changed) + " changes do not fit " +
                                      std::to_string(payload.size()) + " bytes");
    SILT_TRY(check_padding(block, payload.subspan(used)));
    const std::byte* positions = payload.data() + kCountBytes;
    const std::byte* new_words = positions + changed * kPositionBytes;
    int64_t previous = -1;
    for (uint64_t i = 0; i < changed; ++i) {
      const auto position = load_le<uint32_t>(positions + i * kPositionBytes);
      if (position <= previous || position >= elements)
        return corrupt_block(block, "position " + std::to_string(position) + " after " +
                                        std::to_string(previous) + " in a block of " +
                                        std::to_string(elements) + " elements");
      previous = position;
      std::memcpy(words.data() + position * word_bytes, new_words + i * word_bytes, word_bytes);
    }
    return changed;
  }

 private:
  const TileCode& code_;
};

class RawCodec : public Codec {
 public:
  uint16_t id() const override { return 1; }
  std::string_view name() const override { return "raw"; }
  Need need() const override { return Need::kNothing; }

  // Never too much: append_section relies on it to bound every section.
  uint64_t estimate_bytes(const TileChange& change) const override {
    const unsigned word_bytes = dtype_info(change.dtype).word_bytes;
    uint64_t bytes = 0;
    for (uint64_t block = 0; block < change.blocks(); ++block) {
      const uint64_t changed = block_changes(change, block).count();
      if (changed != 0) bytes += kCountBytes + changed * (kPositionBytes + word_bytes);
    }
    return bytes;
  }

  Result<EncodedTile> encode(const TileChange& change) const override {
    const unsigned word_bytes = dtype_info(change.dtype).word_bytes;
    EncodedTile tile;
    tile.blocks.resize(change.blocks());
    for (uint64_t block = 0; block < change.blocks(); ++block) {
      const ChangeRange range = block_changes(change, block);
      if (range.count() == 0) continue;
      std::vector<std::byte>& payload = tile.blocks[block];
      payload.resize(kCountBytes + range.count() * (kPositionBytes + word_bytes));
      store_le(payload.data(), static_cast<uint32_t>(range.count()));
      std::byte* out = payload.data() + kCountBytes;
      for_each_change(change, block, [&](uint32_t position, uint64_t) {
        store_le(out, position);
        out += kPositionBytes;
      });
      std::memcpy(out, change.changed_words.data() + range.begin * word_bytes,
                  range.count() * word_bytes);
    }
    return tile;
  }

  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    SILT_TRY(check_no_params(code, name()));
    return std::unique_ptr<BlockDecoder>(std::make_unique<RawDecoder>(code));
  }
};

}  // namespace

const Codec& raw_codec() {
  static const RawCodec codec;
  return codec;
}

}  // namespace siltstone
