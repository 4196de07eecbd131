// Sections put together field by field from docs/format/delta_pack.md, right or wrong at will.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "delta/section.h"

namespace siltstone::test {

using Bytes = std::vector<std::byte>;

template <class T>
void append_le(T value, Bytes* out) {
  std::array<std::byte, sizeof value> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  for (const std::byte byte : bytes) out->push_back(byte);
}

template <class T>
void poke(size_t at, T value, Bytes* bytes) {
  store_le(bytes->data() + at, value);
}

// Where the header's fixed fields lie.
inline constexpr size_t kVersionAt = 36;
inline constexpr size_t kCodecAt = 37;
inline constexpr size_t kDTypeAt = 38;
inline constexpr size_t kBlockAndNeedAt = 39;

// Writes the checksum that the bytes should have.
inline void seal(Bytes* section) {
  if (section->size() < kFixedHeaderBytes) return;
  poke(0, static_cast<uint32_t>(xxh64(ByteSpan(*section).subspan(4))), section);
}

inline Bytes number(uint64_t value) {
  Bytes out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(value | 0x80));
  out.push_back(static_cast<std::byte>(value));
  return out;
}

struct SectionBytes {
  uint8_t version = 1;
  uint8_t log2_block = 16;
  uint8_t codec = 1;
  DType dtype = DType::kBF16;
  uint8_t need = 0;
  uint64_t row_begin = 0;
  uint64_t rows = 100;
  uint64_t col_begin = 0;
  uint64_t cols = 1;
  uint64_t changed = 1;
  Bytes params;
  std::vector<Bytes> blocks;
  // What the header claims, if that is not the truth.
  std::optional<Bytes> length;  // as it is written
  std::optional<uint64_t> params_bytes;
  std::optional<std::vector<uint64_t>> block_units;

  Bytes build() const {
    Bytes tail;
    const auto add = [&tail](const Bytes& bytes) {
      for (const std::byte byte : bytes) tail.push_back(byte);
    };
    for (const uint64_t field :
         {changed, params_bytes.value_or(params.size()), row_begin, rows, col_begin, cols})
      add(number(field));
    for (size_t i = 0; i < blocks.size(); ++i)
      add(number(block_units ? (*block_units)[i] : ceil_div(blocks[i].size(), 4)));
    add(params);
    uint64_t payloads = 0;
    for (const Bytes& block : blocks) payloads += align_up(block.size(), 4);
    Bytes length_bytes = number(0);
    const auto total = [&] {
      return align_up(kFixedHeaderBytes + length_bytes.size() + tail.size(), 4) + payloads;
    };
    while (number(total() / 4).size() != length_bytes.size()) length_bytes.push_back(std::byte{0});
    length_bytes = length.value_or(number(total() / 4));
    Bytes out(kVersionAt);
    append_le(version, &out);
    append_le(codec, &out);
    append_le(static_cast<uint8_t>(dtype), &out);
    append_le(static_cast<uint8_t>(need << 6 | log2_block), &out);
    for (const Bytes* part : {&length_bytes, &tail})
      for (const std::byte byte : *part) out.push_back(byte);
    out.resize(align_up(out.size(), 4));
    for (const Bytes& block : blocks) {
      for (const std::byte byte : block) out.push_back(byte);
      out.resize(align_up(out.size(), 4));
    }
    seal(&out);
    return out;
  }
};

// Opens a section and applies all its blocks to `words`; returns the changes counted. `earlier`
// may be empty.
inline Result<uint64_t> apply_section(ByteSpan bytes, const WordMatrix& matrix, DType dtype,
                                      std::vector<std::byte>* words, ByteSpan earlier = {}) {
  Result<Section> section = Section::open(bytes, matrix, dtype);
  if (!section) return section.error();
  const uint64_t block_bytes = uint64_t{matrix.word_bytes} << section->header().log2_block;
  uint64_t changed = 0;
  for (uint64_t block = 0; block < section->header().blocks(); ++block) {
    const uint64_t begin = block * block_bytes;
    const uint64_t length = std::min<uint64_t>(block_bytes, words->size() - begin);
    const Result<uint64_t> count =
        section->apply(block, MutByteSpan(*words).subspan(begin, length),
                       earlier.empty() ? earlier : earlier.subspan(begin, length));
    if (!count) return count.error();
    changed += *count;
  }
  if (changed != section->header().changed)
    return Error{Code::kCorrupt, "the blocks' changes do not add up to the section's"};
  return changed;
}

}  // namespace siltstone::test
