// A Codec turns the change of one tile of a tensor into bytes and back.
//
// A tile is a range of rows times a range of columns of the tensor's two-dimensional view; its
// elements are numbered row-major and cut into blocks of 2^log2_block elements, each decodable on
// its own. docs/format/delta_pack.md specifies the bytes.
//
// Decoding applies: it turns a block's old words into its new words in place, in scratch memory.
// Threads: codecs are stateless; a BlockDecoder may be used from many threads.
// Errors: decode input is hostile; kCorrupt, never undefined behaviour, never an allocation that
// the input's own size does not bound.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

// What a decoder must know of the state before.
enum class Need : uint8_t {
  kNothing = 0,
  kChangedWords = 1,  // the old words at the changed positions
  kAllWords = 2,      // every old word of the tile
  kEarlierWords = 3,  // these and, beside them, the words that the version before had
};

// What an encoder may spend on making sections small. Whatever it is, no section is larger than
// codec raw makes it.
enum class Effort : uint8_t {
  kFast,     // little more than finding the changes: gaps, plain or nearly so
  kDefault,  // the codec that a sample says is the smallest
  kMax,      // the smallest of all codecs that might be
};
inline constexpr std::array kEfforts = {Effort::kFast, Effort::kDefault, Effort::kMax};

// "fast", "default" and "max".
std::string_view effort_name(Effort effort);

// Elements a change list counts from: positions are 16-bit offsets inside a run.
inline constexpr uint64_t kRunElements = 65536;
inline constexpr unsigned kDefaultLog2Block = 20;

// The change of one tile, as an encoder sees it. Views into the caller's buffers.
struct TileChange {
  DType dtype = DType::kU8;
  uint64_t elements = 0;
  unsigned log2_block = kDefaultLog2Block;    // at least 16: a block is a whole number of runs
  std::span<const std::byte> old_words;       // elements * word_bytes
  std::span<const std::byte> new_words;       // elements * word_bytes
  std::span<const uint16_t> positions;        // of all runs, ascending inside each run
  std::span<const uint64_t> run_ends;         // per run: end of its part of `positions`
  std::span<const std::byte> changed_words;   // new words, parallel to `positions`
  std::span<const std::byte> replaced_words;  // old words, parallel to `positions`
  // What the words were one version before the old ones: elements * word_bytes. Empty: not known,
  // at least not to whoever will decode; then no codec of Need::kEarlierWords is tried.
  std::span<const std::byte> earlier_words;
  Effort effort = Effort::kDefault;
  uint64_t changed() const { return positions.size(); }
  uint64_t blocks() const { return (elements + (1ULL << log2_block) - 1) >> log2_block; }
};

struct EncodedTile {
  std::vector<std::byte> params;               // what all blocks share; codec-specific
  std::vector<std::vector<std::byte>> blocks;  // one payload per block; empty = block unchanged
};

// One block-coded tile as a decoder sees it.
struct TileCode {
  DType dtype = DType::kU8;
  uint64_t elements = 0;
  unsigned log2_block = kDefaultLog2Block;
  uint64_t changed = 0;
  std::span<const std::byte> params;
  std::vector<std::span<const std::byte>> blocks;  // padding to 4 bytes included
};

class BlockDecoder {
 public:
  virtual ~BlockDecoder() = default;
  // `words` holds the block's old words and receives its new words. A codec that needs nothing does
  // not look at what `words` holds, but may leave words that did not change as they are (raw does,
  // dense overwrites all). `earlier` has the words of the version before the old ones; only codecs
  // of Need::kEarlierWords look at it, and need it as long as `words`. On error the content of
  // `words` is unspecified. Returns how many elements the block's code says it changes: whoever
  // applies all blocks compares the sum with TileCode::changed.
  virtual Result<uint64_t> apply(uint64_t block, std::span<std::byte> words,
                                 std::span<const std::byte> earlier) const = 0;
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual uint16_t id() const = 0;
  virtual std::string_view name() const = 0;
  virtual Need need() const = 0;
  // Whether it is tried where little may be spent.
  virtual bool fast() const { return true; }
  // A cheap guess of the encoded size in bytes: only codecs near the smallest guess are tried.
  virtual uint64_t estimate_bytes(const TileChange& change) const = 0;
  // kUnsupported: it does not code words of this dtype, or without what it needs to know; another
  // codec has to.
  virtual Result<EncodedTile> encode(const TileChange& change) const = 0;
  // `code` must outlive the decoder.
  virtual Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const = 0;
};

// The table of codecs, in order of id; nullptr if there is none of that id or name.
std::span<const Codec* const> all_codecs();
const Codec* find_codec(uint16_t id);
const Codec* find_codec(std::string_view name);

}  // namespace siltstone
