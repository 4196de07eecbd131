#include "delta/section.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <string>

#include "base/checksum.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"

namespace siltstone {
namespace {

constexpr uint8_t kVersion = 1;
constexpr unsigned kMinLog2Block = 13;  // of the format
constexpr unsigned kMaxLog2Block = 24;
constexpr unsigned kMinReadableLog2Block = 16;  // a block is a whole number of runs
constexpr unsigned kNeedShift = 6;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kMaxNumberBytes = 9;  // numbers are below 2^63

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

uint32_t checksum_of(ByteSpan section) {
  return static_cast<uint32_t>(xxh64(section.subspan(kChecksumBytes)));
}

// Numbers of seven bits a byte, the lowest first; the top bit says that more follow.
void put_number(uint64_t number, std::vector<std::byte>* out) {
  for (; number >= 0x80; number >>= 7) out->push_back(static_cast<std::byte>(number | 0x80));
  out->push_back(static_cast<std::byte>(number));
}

size_t number_bytes(uint64_t number) {
  return std::max<size_t>(1, ceil_div(static_cast<uint64_t>(std::bit_width(number)), 7));
}

class NumberReader {
 public:
  NumberReader(ByteSpan bytes, size_t at) : bytes_(bytes), at_(at) {}
  size_t at() const { return at_; }

  Result<uint64_t> read(const char* what) {
    uint64_t number = 0;
    for (size_t i = 0; i < kMaxNumberBytes; ++i) {
      if (at_ == bytes_.size()) return corrupt(std::string("cut off inside its ") + what);
      const auto byte = static_cast<uint64_t>(bytes_[at_++]);
      number |= (byte & 0x7F) << (7 * i);
      if (byte < 0x80) {
        if (byte == 0 && i > 0) return corrupt(std::string(what) + " in more bytes than it needs");
        return number;
      }
    }
    return corrupt(std::string(what) + " of 2^63 or more");
  }

 private:
  ByteSpan bytes_;
  size_t at_;
};

Status read_kind(ByteSpan bytes, SectionHeader* header) {
  const auto u8 = [bytes](size_t at) { return static_cast<uint8_t>(bytes[at]); };
  const auto u64 = [bytes](size_t at) { return load_le<uint64_t>(bytes.data() + at); };
  header->checksum = load_le<uint32_t>(bytes.data());
  header->sum_before = {u64(4), u64(12)};
  header->sum_after = {u64(20), u64(28)};
  const uint8_t version = u8(36);
  if (version == 0) return corrupt("version 0");
  if (version > kVersion)
    return unsupported("version " + std::to_string(version) + ", this program reads " +
                       std::to_string(kVersion));
  header->codec = u8(37);
  if (header->codec == 0) return corrupt("codec 0");
  header->dtype = static_cast<DType>(u8(38));
  if (find_dtype(header->dtype) == nullptr)
    return unsupported("dtype code " + std::to_string(static_cast<unsigned>(header->dtype)));
  const unsigned need = u8(39) >> kNeedShift;
  header->need = static_cast<Need>(need);
  const unsigned log2_block = u8(39) & ((1U << kNeedShift) - 1);
  if (log2_block < kMinLog2Block || log2_block > kMaxLog2Block)
    return corrupt("blocks of 2^" + std::to_string(log2_block) + " elements, 2^13 to 2^24 allowed");
  if (log2_block < kMinReadableLog2Block)
    return unsupported("blocks of 2^" + std::to_string(log2_block) +
                       " elements, this program reads 2^16 to 2^24");
  header->log2_block = static_cast<uint8_t>(log2_block);
  return {};
}

Status read_numbers(ByteSpan bytes, SectionHeader* header) {
  NumberReader numbers(bytes, kFixedHeaderBytes);
  uint64_t units = 0;
  uint64_t params = 0;
  SILT_ASSIGN(units, numbers.read("length"));
  SILT_ASSIGN(header->changed, numbers.read("count of changes"));
  SILT_ASSIGN(params, numbers.read("length of the parameters"));
  SILT_ASSIGN(header->tile.row_begin, numbers.read("first row"));
  SILT_ASSIGN(header->tile.rows, numbers.read("rows"));
  SILT_ASSIGN(header->tile.col_begin, numbers.read("first column"));
  SILT_ASSIGN(header->tile.cols, numbers.read("columns"));
  header->header_bytes = numbers.at();
  if (!checked_mul(units, kSectionAlignment, &header->section_bytes))
    return corrupt("a length of 2^64 or more");
  if (params > std::numeric_limits<uint32_t>::max())
    return corrupt(std::to_string(params) + " bytes of parameters");
  header->params_bytes = static_cast<uint32_t>(params);
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

// Header, a byte for the length of each block, parameters and at least one payload fit the section.
// Elements are below 2^63, so there are fewer than 2^50 blocks and no sum here wraps.
Status check_layout(const SectionHeader& header) {
  const uint64_t least =
      align_up(header.header_bytes + header.blocks() + header.params_bytes, kSectionAlignment) +
      kSectionAlignment;
  if (header.section_bytes < least)
    return corrupt("length " + std::to_string(header.section_bytes) + " for " +
                   std::to_string(header.blocks()) + " blocks and " +
                   std::to_string(header.params_bytes) + " bytes of parameters, at least " +
                   std::to_string(least) + " needed");
  return {};
}

// Parameters and block payloads.
Status read_parts(ByteSpan bytes, const SectionHeader& header, TileCode* code) {
  NumberReader numbers(bytes, header.header_bytes);
  std::vector<uint64_t> lengths(header.blocks());
  uint64_t total = 0;
  uint64_t touched = 0;
  for (uint64_t& length : lengths) {
    SILT_ASSIGN(length, numbers.read("length of a block"));
    if (!checked_mul(length, kSectionAlignment, &length) || !checked_add(total, length, &total) ||
        total > bytes.size())
      return corrupt("its blocks have more bytes than it has");
    touched += length != 0 ? 1 : 0;
  }
  uint64_t at = numbers.at();
  if (header.params_bytes > bytes.size() - at) return corrupt("cut off inside its parameters");
  code->params = bytes.subspan(at, header.params_bytes);
  at += header.params_bytes;
  const uint64_t begin = align_up(at, kSectionAlignment);
  if (begin > bytes.size() || total != bytes.size() - begin)
    return corrupt("blocks of " + std::to_string(total) + " bytes behind a header of " +
                   std::to_string(begin) + " in a length of " + std::to_string(bytes.size()));
  if (std::ranges::any_of(bytes.subspan(at, begin - at),
                          [](std::byte byte) { return byte != std::byte{0}; }))
    return corrupt("padding before the first block is not zero");
  if (touched > header.changed)
    return corrupt(std::to_string(touched) + " blocks with changes for " +
                   std::to_string(header.changed) + " changed elements");
  code->blocks.reserve(lengths.size());
  at = begin;
  for (const uint64_t length : lengths) {
    code->blocks.push_back(bytes.subspan(at, length));
    at += length;
  }
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

Status check_change(const TileChange& change, const Tile& tile) {
  const uint64_t bytes = change.elements * dtype_info(change.dtype).word_bytes;
  if (change.changed() == 0 || change.elements != tile.elements() ||
      change.log2_block < kMinReadableLog2Block || change.log2_block > kMaxLog2Block ||
      change.old_words.size() != bytes || change.new_words.size() != bytes ||
      change.run_ends.size() != ceil_div(change.elements, kRunElements) ||
      change.changed_words.size() != change.changed() * dtype_info(change.dtype).word_bytes ||
      change.replaced_words.size() != change.changed_words.size() ||
      (!change.earlier_words.empty() && change.earlier_words.size() != bytes))
    return Error{Code::kInternal, "section: a change list that does not fit its tile"};
  return {};
}

struct Encoded {
  const Codec* codec = nullptr;
  EncodedTile tile;
  uint64_t bytes = 0;  // of parameters, payloads and their lengths
};

uint64_t encoded_bytes(const EncodedTile& tile) {
  uint64_t bytes = tile.params.size();
  for (const auto& block : tile.blocks) {
    const uint64_t units = ceil_div(block.size(), kSectionAlignment);
    bytes += number_bytes(units) + units * kSectionAlignment;
  }
  return bytes;
}

// Keeps the smaller; the earlier one, which has the lower guess, on a tie.
Status try_codec(const Codec& codec, const TileChange& change, Encoded* best) {
  SILT_ASSIGN(EncodedTile tile, codec.encode(change));
  const uint64_t bytes = encoded_bytes(tile);
  if (best->codec == nullptr || bytes < best->bytes) *best = {&codec, std::move(tile), bytes};
  return {};
}

constexpr uint64_t kSmallTileElements = uint64_t{1} << 17;

// Tries the codecs whose guess is near the lowest, and others as long as they promise clearly less
// than what was found: guesses of changes that come in clusters may be far off. Raw's guess is
// never too much.
Result<Encoded> smallest(const TileChange& change) {
  std::vector<std::pair<uint64_t, const Codec*>> guesses;
  for (const Codec* codec : all_codecs()) {
    const bool known = codec->need() != Need::kEarlierWords || !change.earlier_words.empty();
    if (known && (change.effort != Effort::kFast || codec->fast()))
      guesses.emplace_back(codec->estimate_bytes(change), codec);
  }
  const auto [raw_bytes, raw] = guesses.front();
  std::ranges::stable_sort(guesses, {}, &std::pair<uint64_t, const Codec*>::first);
  const uint64_t lowest = guesses.front().first;
  // Of a small tile and of few changes the guess is worse, and trying costs little.
  const bool thorough = change.effort == Effort::kMax || change.elements <= kSmallTileElements ||
                        change.changed() <= change.elements / 256;
  const uint64_t near = change.effort == Effort::kFast ? lowest
                        : thorough                     ? lowest + lowest / 2
                                                       : lowest + lowest / 16;
  Encoded best;
  for (const auto& [guess, codec] : guesses)
    if (guess <= near || guess + guess / 8 < best.bytes) SILT_TRY(try_codec(*codec, change, &best));
  if (best.bytes > raw_bytes) SILT_TRY(try_codec(*raw, change, &best));
  return best;
}

}  // namespace

Result<SectionHeader> parse_section_header(ByteSpan bytes) {
  if (bytes.size() < kFixedHeaderBytes)
    return corrupt(std::to_string(bytes.size()) + " bytes, the header alone takes more than " +
                   std::to_string(kFixedHeaderBytes));
  SectionHeader header;
  SILT_TRY(read_kind(bytes, &header));
  SILT_TRY(read_numbers(bytes, &header));
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
  // All numbers but the length, which depends on how many bytes they take.
  std::vector<std::byte> numbers;
  for (const uint64_t number : {change.changed(), uint64_t{code.params.size()}, tile.row_begin,
                                tile.rows, tile.col_begin, tile.cols})
    put_number(number, &numbers);
  for (const auto& block : code.blocks)
    put_number(ceil_div(block.size(), kSectionAlignment), &numbers);
  const auto section_bytes = [&](size_t length_bytes) {
    uint64_t bytes = align_up(
        kFixedHeaderBytes + length_bytes + numbers.size() + code.params.size(), kSectionAlignment);
    for (const auto& block : code.blocks) bytes += align_up(block.size(), kSectionAlignment);
    return bytes;
  };
  size_t length_bytes = 1;
  while (number_bytes(section_bytes(length_bytes) / kSectionAlignment) > length_bytes)
    ++length_bytes;
  const uint64_t total = section_bytes(length_bytes);
  const size_t start = out->size();
  out->reserve(start + total);
  const auto append = [out](const auto* from, size_t bytes) {
    const auto* begin = reinterpret_cast<const std::byte*>(from);
    out->insert(out->end(), begin, begin + bytes);
  };
  const uint64_t sums[] = {before.a, before.b, after.a, after.b};
  const uint8_t kind[] = {
      kVersion, static_cast<uint8_t>(encoded.codec->id()), static_cast<uint8_t>(change.dtype),
      static_cast<uint8_t>(change.log2_block | static_cast<unsigned>(encoded.codec->need())
                                                   << kNeedShift)};
  out->resize(start + kChecksumBytes);
  append(sums, sizeof sums);
  append(kind, sizeof kind);
  put_number(total / kSectionAlignment, out);
  append(numbers.data(), numbers.size());
  append(code.params.data(), code.params.size());
  const auto pad = [&] { out->resize(start + align_up(out->size() - start, kSectionAlignment)); };
  pad();
  for (const auto& block : code.blocks) {
    append(block.data(), block.size());
    pad();
  }
  store_le(out->data() + start, checksum_of(ByteSpan(*out).subspan(start)));
  return {};
}

Result<Section> Section::open(ByteSpan bytes, const WordMatrix& matrix, DType dtype) {
  Section section;
  SILT_ASSIGN(section.header_, parse_section_header(bytes));
  const SectionHeader& header = section.header_;
  if (header.section_bytes != bytes.size())
    return corrupt("length " + std::to_string(header.section_bytes) + " in its header, " +
                   std::to_string(bytes.size()) + " bytes given");
  if (const uint32_t found = checksum_of(bytes); found != header.checksum)
    return corrupt("checksum " + to_hex(uint64_t{header.checksum}) + " in its header, " +
                   to_hex(uint64_t{found}) + " over its bytes");
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
  SILT_TRY(read_parts(bytes, header, &code));
  SILT_ASSIGN(section.decoder_, codec->decoder(code));
  return section;
}

Result<uint64_t> Section::apply(uint64_t block, MutByteSpan words, ByteSpan earlier) const {
  if (block >= code_->blocks.size())
    return Error{Code::kInvalidArgument, "section: no block " + std::to_string(block)};
  const uint64_t elements = block_elements(code_->elements, code_->log2_block, block);
  if (words.size() != elements * dtype_info(code_->dtype).word_bytes)
    return Error{Code::kInvalidArgument, "section: " + std::to_string(words.size()) +
                                             " bytes of words for a block of " +
                                             std::to_string(elements) + " elements"};
  if (!touches(block)) return uint64_t{0};
  return decoder_->apply(block, words, earlier);
}

}  // namespace siltstone
