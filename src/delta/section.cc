#include "delta/section.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "base/checksum.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"

namespace siltstone {
namespace {

constexpr uint32_t kMagic = 0x53544C53;  // "SLTS"
constexpr uint8_t kVersion = 1;
constexpr unsigned kMinLog2Block = 13;  // of the format
constexpr unsigned kMaxLog2Block = 24;
constexpr unsigned kMinReadableLog2Block = 16;  // a block is a whole number of runs
constexpr size_t kChecksumOffset = 96;
constexpr size_t kOffsetBytes = 4;

Error corrupt(const std::string& problem) {
  return {Code::kCorrupt, "section: " + problem};
}
Error unsupported(const std::string& problem) {
  return {Code::kUnsupported, "section: " + problem};
}

std::string range_text(uint64_t begin, uint64_t count) {
  return "[" + std::to_string(begin) + ", " + std::to_string(begin) + " + " +
         std::to_string(count) + ")";
}

uint64_t checksum_of(ByteSpan section) {
  constexpr std::byte kZeros[8] = {};
  Xxh64 hash;
  hash.update(section.first(kChecksumOffset));
  hash.update(kZeros);
  hash.update(section.subspan(kChecksumOffset + sizeof kZeros));
  return hash.digest();
}

// Where the first block payload begins. REQUIRES: the header passed check_layout.
uint64_t payload_offset(const SectionHeader& header) {
  return align_up(kSectionHeaderBytes + header.blocks() * kOffsetBytes + header.params_bytes,
                  kSectionAlignment);
}

Status check_kind(ByteSpan bytes, SectionHeader* header) {
  if (load_le<uint32_t>(bytes.data()) != kMagic) return corrupt("wrong magic");
  const auto version = static_cast<uint8_t>(bytes[4]);
  if (version == 0) return corrupt("version 0");
  if (version > kVersion)
    return unsupported("version " + std::to_string(version) + ", this program reads " +
                       std::to_string(kVersion));
  const auto log2_block = static_cast<uint8_t>(bytes[5]);
  if (log2_block < kMinLog2Block || log2_block > kMaxLog2Block)
    return corrupt("blocks of 2^" + std::to_string(log2_block) + " elements, 2^13 to 2^24 allowed");
  if (log2_block < kMinReadableLog2Block)
    return unsupported("blocks of 2^" + std::to_string(log2_block) +
                       " elements, this program reads 2^16 to 2^24");
  header->log2_block = log2_block;
  header->codec = load_le<uint16_t>(bytes.data() + 6);
  if (header->codec == 0) return corrupt("codec 0");
  header->dtype = static_cast<DType>(bytes[8]);
  if (find_dtype(header->dtype) == nullptr)
    return unsupported("dtype code " + std::to_string(static_cast<unsigned>(header->dtype)));
  const auto need = static_cast<uint8_t>(bytes[9]);
  if (need > static_cast<uint8_t>(Need::kAllWords))
    return unsupported("need " + std::to_string(need));
  header->need = static_cast<Need>(need);
  if (load_le<uint16_t>(bytes.data() + 10) != 0) return corrupt("reserved field is not zero");
  return {};
}

Status check_tile(const SectionHeader& header) {
  const Tile& tile = header.tile;
  uint64_t end = 0;
  uint64_t elements = 0;
  uint64_t bytes = 0;
  if (tile.rows == 0 || tile.cols == 0)
    return corrupt("tile of " + std::to_string(tile.rows) + " x " + std::to_string(tile.cols) +
                   " elements");
  if (!checked_add(tile.row_begin, tile.rows, &end) ||
      !checked_add(tile.col_begin, tile.cols, &end) ||
      !checked_mul(tile.rows, tile.cols, &elements) ||
      !checked_mul(elements, dtype_info(header.dtype).word_bytes, &bytes) ||
      bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return corrupt("tile rows " + range_text(tile.row_begin, tile.rows) + " columns " +
                   range_text(tile.col_begin, tile.cols) + " is larger than any tensor");
  if (header.changed == 0) return corrupt("no changed element");
  if (header.changed > elements)
    return corrupt(std::to_string(header.changed) + " changed of " + std::to_string(elements) +
                   " elements");
  return {};
}

// Header, offset table, parameters and at least one payload fit the section. Elements are below
// 2^63, so there are fewer than 2^51 blocks and no sum here wraps.
Status check_layout(const SectionHeader& header) {
  if (header.section_bytes % kSectionAlignment != 0)
    return corrupt("length " + std::to_string(header.section_bytes) + " is no multiple of 16");
  const uint64_t least = payload_offset(header) + kSectionAlignment;
  if (header.section_bytes < least)
    return corrupt("length " + std::to_string(header.section_bytes) + " for " +
                   std::to_string(header.blocks()) + " blocks and " +
                   std::to_string(header.params_bytes) + " bytes of parameters, at least " +
                   std::to_string(least) + " needed");
  return {};
}

// Block payloads out of the offset table.
Status read_blocks(ByteSpan bytes, const SectionHeader& header,
                   std::vector<std::span<const std::byte>>* blocks) {
  const uint64_t begin = payload_offset(header);
  const uint64_t params_end =
      kSectionHeaderBytes + header.blocks() * kOffsetBytes + header.params_bytes;
  if (std::ranges::any_of(bytes.subspan(params_end, begin - params_end),
                          [](std::byte byte) { return byte != std::byte{0}; }))
    return corrupt("padding before the first block is not zero");
  const ByteSpan payloads = bytes.subspan(begin);
  blocks->reserve(header.blocks());
  uint64_t start = 0;
  uint64_t touched = 0;
  for (uint64_t block = 0; block < header.blocks(); ++block) {
    const uint64_t end = kSectionAlignment * load_le<uint32_t>(bytes.data() + kSectionHeaderBytes +
                                                               block * kOffsetBytes);
    if (end < start || end > payloads.size())
      return corrupt("block " + std::to_string(block) + " ends at " + std::to_string(end) +
                     ", it starts at " + std::to_string(start) + " of " +
                     std::to_string(payloads.size()) + " payload bytes");
    blocks->push_back(payloads.subspan(start, end - start));
    touched += end != start ? 1 : 0;
    start = end;
  }
  if (start != payloads.size())
    return corrupt("last block ends at " + std::to_string(start) + " of " +
                   std::to_string(payloads.size()) + " payload bytes");
  if (touched > header.changed)
    return corrupt(std::to_string(touched) + " blocks with changes for " +
                   std::to_string(header.changed) + " changed elements");
  return {};
}

Status check_place(const SectionHeader& header, const WordMatrix& matrix, DType dtype) {
  if (header.dtype != dtype)
    return corrupt("dtype " + std::string(dtype_info(header.dtype).name) + ", the tensor's is " +
                   std::string(dtype_info(dtype).name));
  const Tile& tile = header.tile;
  if (tile.row_begin + tile.rows > matrix.rows || tile.col_begin + tile.cols > matrix.cols)
    return corrupt("tile rows " + range_text(tile.row_begin, tile.rows) + " columns " +
                   range_text(tile.col_begin, tile.cols) + " of a tensor of " +
                   std::to_string(matrix.rows) + " x " + std::to_string(matrix.cols));
  return {};
}

uint64_t encoded_bytes(const EncodedTile& tile) {
  uint64_t bytes =
      align_up(kSectionHeaderBytes + tile.blocks.size() * kOffsetBytes + tile.params.size(),
               kSectionAlignment);
  for (const auto& block : tile.blocks) bytes += align_up(block.size(), kSectionAlignment);
  return bytes;
}

Status check_change(const TileChange& change, const Tile& tile) {
  const uint64_t bytes = change.elements * dtype_info(change.dtype).word_bytes;
  if (change.changed() == 0 || change.elements != tile.elements() ||
      change.log2_block < kMinReadableLog2Block || change.log2_block > kMaxLog2Block ||
      change.old_words.size() != bytes || change.new_words.size() != bytes ||
      change.run_ends.size() != ceil_div(change.elements, kRunElements) ||
      change.changed_words.size() != change.changed() * dtype_info(change.dtype).word_bytes ||
      change.replaced_words.size() != change.changed_words.size())
    return Error{Code::kInternal, "section: a change list that does not fit its tile"};
  return {};
}

struct Encoded {
  const Codec* codec = nullptr;
  EncodedTile tile;
  uint64_t bytes = 0;
};

// Keeps the smaller; the earlier one, which has the lower guess or id, on a tie.
Status try_codec(const Codec& codec, const TileChange& change, Encoded* best) {
  SILT_ASSIGN(EncodedTile tile, codec.encode(change));
  const uint64_t bytes = encoded_bytes(tile);
  if (best->codec == nullptr || bytes < best->bytes) *best = {&codec, std::move(tile), bytes};
  return {};
}

// Codecs whose guess is within half of the lowest are tried; raw, whose guess is exact, again
// wherever the guesses of the others promised too much.
Result<Encoded> smallest(const TileChange& change) {
  const auto codecs = all_codecs();
  std::vector<uint64_t> guesses;
  for (const Codec* codec : codecs) guesses.push_back(codec->estimate_bytes(change));
  const uint64_t lowest = *std::ranges::min_element(guesses);
  Encoded best;
  for (size_t i = 0; i < codecs.size(); ++i)
    if (guesses[i] <= lowest + lowest / 2) SILT_TRY(try_codec(*codecs[i], change, &best));
  if (best.bytes > guesses[0] + kSectionHeaderBytes) SILT_TRY(try_codec(*codecs[0], change, &best));
  return best;
}

}  // namespace

Result<SectionHeader> parse_section_header(ByteSpan bytes) {
  if (bytes.size() < kSectionHeaderBytes)
    return corrupt(std::to_string(bytes.size()) + " bytes, the header alone takes " +
                   std::to_string(kSectionHeaderBytes));
  SectionHeader header;
  SILT_TRY(check_kind(bytes, &header));
  const auto u64 = [bytes](size_t at) { return load_le<uint64_t>(bytes.data() + at); };
  header.params_bytes = load_le<uint32_t>(bytes.data() + 12);
  header.section_bytes = u64(16);
  header.tile = {u64(24), u64(32), u64(40), u64(48)};
  header.changed = u64(56);
  header.sum_before = {u64(64), u64(72)};
  header.sum_after = {u64(80), u64(88)};
  header.checksum = u64(kChecksumOffset);
  SILT_TRY(check_tile(header));
  SILT_TRY(check_layout(header));
  return header;
}

Status check_disjoint(std::vector<Tile> tiles) {
  std::ranges::sort(tiles, {},
                    [](const Tile& tile) { return std::pair(tile.row_begin, tile.col_begin); });
  // The tiles that reach the current row, by first column. Tiles met again after their last row
  // are dropped, so each is looked at a bounded number of times.
  std::map<uint64_t, Tile> open;
  for (const Tile& tile : tiles) {
    auto other = open.upper_bound(tile.col_begin);
    if (other != open.begin()) --other;
    while (other != open.end() && other->first < tile.col_begin + tile.cols) {
      const Tile& seen = other->second;
      if (seen.col_begin + seen.cols <= tile.col_begin) {
        ++other;
      } else if (seen.row_begin + seen.rows <= tile.row_begin) {
        other = open.erase(other);
      } else {
        return corrupt("tiles overlap at row " + std::to_string(tile.row_begin) + ", column " +
                       std::to_string(std::max(tile.col_begin, seen.col_begin)));
      }
    }
    open.insert_or_assign(tile.col_begin, tile);
  }
  return {};
}

Result<std::vector<ByteSpan>> split_sections(ByteSpan entry) {
  std::vector<ByteSpan> sections;
  std::vector<Tile> tiles;
  uint64_t at = 0;
  while (at < entry.size()) {
    SILT_ASSIGN(const SectionHeader header, parse_section_header(entry.subspan(at)));
    if (header.section_bytes > entry.size() - at)
      return corrupt("length " + std::to_string(header.section_bytes) + " at byte " +
                     std::to_string(at) + " of an entry of " + std::to_string(entry.size()));
    sections.push_back(entry.subspan(at, header.section_bytes));
    tiles.push_back(header.tile);
    at += header.section_bytes;
  }
  SILT_TRY(check_disjoint(std::move(tiles)));
  return sections;
}

Status append_section(const TileChange& change, const Tile& tile, const Sum128& before,
                      const Sum128& after, const Codec* forced, std::vector<std::byte>* out) {
  SILT_TRY(check_change(change, tile));
  Encoded encoded;
  if (forced != nullptr) {
    SILT_TRY(try_codec(*forced, change, &encoded));
  } else {
    SILT_ASSIGN(encoded, smallest(change));
  }
  const EncodedTile& code = encoded.tile;
  const size_t start = out->size();
  out->resize(start + encoded.bytes);  // zeros: padding needs no writing
  std::byte* const section = out->data() + start;
  const auto put = [section](size_t at, auto value) { store_le(section + at, value); };
  put(0, kMagic);
  put(4, kVersion);
  put(5, static_cast<uint8_t>(change.log2_block));
  put(6, encoded.codec->id());
  put(8, static_cast<uint8_t>(change.dtype));
  put(9, static_cast<uint8_t>(encoded.codec->need()));
  put(12, static_cast<uint32_t>(code.params.size()));
  put(16, encoded.bytes);
  const uint64_t fields[] = {tile.row_begin, tile.rows, tile.col_begin, tile.cols, change.changed(),
                             before.a,       before.b,  after.a,        after.b};
  std::memcpy(section + 24, fields, sizeof fields);
  uint64_t at = kSectionHeaderBytes + code.blocks.size() * kOffsetBytes;
  std::ranges::copy(code.params, section + at);
  at = align_up(at + code.params.size(), kSectionAlignment);
  uint64_t end_units = 0;
  for (size_t block = 0; block < code.blocks.size(); ++block) {
    std::ranges::copy(code.blocks[block], section + at + end_units * kSectionAlignment);
    end_units += ceil_div(code.blocks[block].size(), kSectionAlignment);
    if (end_units > std::numeric_limits<uint32_t>::max()) {
      out->resize(start);
      return unsupported("more than 64 GiB of payload; cut the tensor into smaller tiles");
    }
    put(kSectionHeaderBytes + block * kOffsetBytes, static_cast<uint32_t>(end_units));
  }
  put(kChecksumOffset, checksum_of(ByteSpan(*out).subspan(start)));
  return {};
}

Result<Section> Section::open(ByteSpan bytes, const WordMatrix& matrix, DType dtype) {
  Section section;
  SILT_ASSIGN(section.header_, parse_section_header(bytes));
  const SectionHeader& header = section.header_;
  if (header.section_bytes != bytes.size())
    return corrupt("length " + std::to_string(header.section_bytes) + " in its header, " +
                   std::to_string(bytes.size()) + " bytes given");
  if (const uint64_t found = checksum_of(bytes); found != header.checksum)
    return corrupt("checksum " + to_hex(header.checksum) + " in its header, " + to_hex(found) +
                   " over its bytes");
  SILT_TRY(check_place(header, matrix, dtype));
  const Codec* codec = find_codec(header.codec);
  if (codec == nullptr) return unsupported("codec " + std::to_string(header.codec));
  if (codec->need() != header.need)
    return corrupt("need " + std::to_string(static_cast<unsigned>(header.need)) + ", codec " +
                   std::string(codec->name()) + " has " +
                   std::to_string(static_cast<unsigned>(codec->need())));
  section.code_ = std::make_unique<TileCode>();
  TileCode& code = *section.code_;
  code.dtype = header.dtype;
  code.elements = header.elements();
  code.log2_block = header.log2_block;
  code.changed = header.changed;
  code.params =
      bytes.subspan(kSectionHeaderBytes + header.blocks() * kOffsetBytes, header.params_bytes);
  SILT_TRY(read_blocks(bytes, header, &code.blocks));
  SILT_ASSIGN(section.decoder_, codec->decoder(code));
  return section;
}

Result<uint64_t> Section::apply(uint64_t block, MutByteSpan words) const {
  if (block >= code_->blocks.size())
    return Error{Code::kInvalidArgument, "section: no block " + std::to_string(block)};
  const uint64_t elements = block_elements(code_->elements, code_->log2_block, block);
  if (words.size() != elements * dtype_info(code_->dtype).word_bytes)
    return Error{Code::kInvalidArgument, "section: " + std::to_string(words.size()) +
                                             " bytes of words for a block of " +
                                             std::to_string(elements) + " elements"};
  if (!touches(block)) return uint64_t{0};
  return decoder_->apply(block, words);
}

}  // namespace siltstone
