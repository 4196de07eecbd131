// Arbitrary bytes as a pack and as a section, the latter also with its length and checksum set
// right, so that the codecs behind them are reached. Every block of what opens is applied with
// every set of kernels; they must agree.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "delta/kernels/kernels.h"
#include "delta/pack.h"
#include "delta/section.h"
#include "old_words.h"

namespace siltstone {
namespace {

constexpr uint64_t kMaxTileBytes = uint64_t{1} << 20;  // keeps one input fast

// The smallest tensor that has the section's tile.
WordMatrix matrix_around(const SectionHeader& header) {
  const Tile& tile = header.tile;
  return {tile.row_begin + tile.rows, tile.col_begin + tile.cols,
          dtype_info(header.dtype).word_bytes};
}

// Blocks up to the first that is refused.
struct Applied {
  std::vector<std::byte> words;
  std::vector<uint64_t> changed;
  bool operator==(const Applied&) const = default;
};

Applied apply_blocks(const Section& section, std::vector<std::byte> words, ByteSpan earlier) {
  const SectionHeader& header = section.header();
  const uint64_t word_bytes = dtype_info(header.dtype).word_bytes;
  const uint64_t block_bytes = word_bytes << header.log2_block;
  Applied out;
  for (uint64_t block = 0; block < header.blocks(); ++block) {
    const uint64_t begin = block * block_bytes;
    const uint64_t length = std::min<uint64_t>(block_bytes, words.size() - begin);
    const Result<uint64_t> changed = section.apply(block, MutByteSpan(words).subspan(begin, length),
                                                   earlier.subspan(begin, length));
    if (!changed) {
      words.resize(begin);  // what a refused block left is unspecified
      break;
    }
    if (*changed > length / word_bytes) std::abort();
    out.changed.push_back(*changed);
  }
  out.words = std::move(words);
  return out;
}

void apply_section(ByteSpan bytes) {
  const Result<SectionHeader> header = parse_section_header(bytes);
  if (!header) return;
  const Result<Section> section = Section::open(bytes, matrix_around(*header), header->dtype);
  const uint64_t word_bytes = dtype_info(header->dtype).word_bytes;
  if (!section || header->elements() > kMaxTileBytes / word_bytes) return;
  // Zeros, as most of the corpus was made for other words; then words of all sizes.
  for (const uint64_t seed : {uint64_t{0}, header->sum_before.a | 1}) {
    const std::vector<std::byte> old_words =
        make_old_words(header->dtype, header->elements(), seed);
    // Words that moved before, and words that did not.
    std::vector<std::byte> earlier = old_words;
    uint64_t state = seed + 1;
    for (size_t at = 0; at < earlier.size(); at += 1 + next_random(&state) % 32)
      earlier[at] ^= static_cast<std::byte>(state % 16);
    std::optional<Applied> first;
    for (const Kernels* set : runnable_kernels()) {
      use_kernels(*set);
      Applied applied = apply_blocks(*section, old_words, earlier);
      if (!first) {
        first = std::move(applied);
      } else if (applied != *first) {
        std::abort();
      }
    }
  }
}

// The checksum is the first thing that random bytes fail.
void apply_patched(ByteSpan bytes) {
  if (bytes.size() < kFixedHeaderBytes) return;
  std::vector<std::byte> section(bytes.begin(), bytes.end());
  const Result<SectionHeader> header = parse_section_header(section);
  if (!header || header->section_bytes > section.size()) return;
  section.resize(header->section_bytes);
  store_le(section.data(), static_cast<uint32_t>(xxh64(ByteSpan(section).subspan(4))));
  apply_section(section);
}

void read_pack(ByteSpan pack) {
  const Result<PackIndex> index = parse_pack_index(pack, pack.size());
  if (!index) return;
  const uint64_t chunks = ceil_div(pack.size() - index->data_begin, kChunkBytes);
  if (!index->sums.empty() && index->sums.size() != index->entries.size()) std::abort();
  if (!index->chunks.empty() && index->chunks.size() != chunks) std::abort();
  for (const PackIndexEntry& entry : index->entries) {
    if (entry.offset_bytes > pack.size() || entry.size_bytes > pack.size() - entry.offset_bytes)
      std::abort();
    const ByteSpan bytes = pack.subspan(entry.offset_bytes, entry.size_bytes);
    if (const auto sections = split_sections(bytes)) {
      for (const ByteSpan section : *sections) apply_section(section);
    }
    apply_patched(bytes);
  }
}

}  // namespace
}  // namespace siltstone

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const siltstone::ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  siltstone::read_pack(bytes);
  siltstone::apply_section(bytes);
  siltstone::apply_patched(bytes);
  return 0;
}
