// Sections put together field by field from docs/format/delta_pack.md, right or wrong at will.
#pragma once

#include <array>
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

// Writes the checksum that the bytes should have.
inline void seal(Bytes* section) {
  if (section->size() < kSectionHeaderBytes) return;
  poke(96, uint64_t{0}, section);
  poke(96, xxh64(*section), section);
}

struct SectionBytes {
  uint8_t version = 1;
  uint8_t log2_block = 16;
  uint16_t codec = 1;
  DType dtype = DType::kBF16;
  uint8_t need = 0;
  uint64_t rows = 100;
  uint64_t cols = 1;
  uint64_t changed = 1;
  Bytes params;
  std::vector<Bytes> blocks;

  Bytes build() const {
    Bytes out;
    append_le(uint32_t{0x53544C53}, &out);
    append_le(version, &out);
    append_le(log2_block, &out);
    append_le(codec, &out);
    append_le(static_cast<uint8_t>(dtype), &out);
    append_le(need, &out);
    append_le(uint16_t{0}, &out);
    append_le(static_cast<uint32_t>(params.size()), &out);
    append_le(uint64_t{0}, &out);  // length, set below
    for (const uint64_t field : {uint64_t{0}, rows, uint64_t{0}, cols, changed})
      append_le(field, &out);
    for (int i = 0; i < 5; ++i) append_le(uint64_t{0}, &out);  // sums and checksum
    uint32_t end = 0;
    for (const Bytes& block : blocks) {
      end += static_cast<uint32_t>(ceil_div(block.size(), 16));
      append_le(end, &out);
    }
    out.insert(out.end(), params.begin(), params.end());
    out.resize(align_up(out.size(), 16));
    for (const Bytes& block : blocks) {
      out.insert(out.end(), block.begin(), block.end());
      out.resize(align_up(out.size(), 16));
    }
    poke(16, uint64_t{out.size()}, &out);
    seal(&out);
    return out;
  }
};

// Opens a section and applies all its blocks to `words`; returns the changes counted.
inline Result<uint64_t> apply_section(ByteSpan bytes, const WordMatrix& matrix, DType dtype,
                                      std::vector<std::byte>* words) {
  Result<Section> section = Section::open(bytes, matrix, dtype);
  if (!section) return section.error();
  const uint64_t block_bytes = uint64_t{matrix.word_bytes} << section->header().log2_block;
  uint64_t changed = 0;
  for (uint64_t block = 0; block < section->header().blocks(); ++block) {
    const uint64_t begin = block * block_bytes;
    const uint64_t length = std::min<uint64_t>(block_bytes, words->size() - begin);
    const Result<uint64_t> count =
        section->apply(block, MutByteSpan(*words).subspan(begin, length));
    if (!count) return count.error();
    changed += *count;
  }
  if (changed != section->header().changed)
    return Error{Code::kCorrupt, "the blocks' changes do not add up to the section's"};
  return changed;
}

}  // namespace siltstone::test
