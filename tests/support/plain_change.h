// The change between two buffers, found one word at a time: what encoders need, without kernels.
#pragma once

#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "siltstone/codec.h"

namespace siltstone::test {

struct PlainChange {
  DType dtype = DType::kU8;
  unsigned log2_block = kDefaultLog2Block;
  std::vector<std::byte> old_words;
  std::vector<std::byte> new_words;
  std::vector<uint16_t> positions;
  std::vector<uint64_t> run_ends;
  std::vector<std::byte> changed_words;
  std::vector<std::byte> replaced_words;
  // What the words may have been one version earlier: mostly the same, else a little below or above
  // them, what they will be next, or something unrelated.
  std::vector<std::byte> earlier_words;

  PlainChange(DType dtype_in, unsigned log2_block_in, std::vector<std::byte> old_in,
              std::vector<std::byte> new_in)
      : dtype(dtype_in),
        log2_block(log2_block_in),
        old_words(std::move(old_in)),
        new_words(std::move(new_in)) {
    const size_t word_bytes = dtype_info(dtype).word_bytes;
    const size_t elements = new_words.size() / word_bytes;
    earlier_words.resize(new_words.size());
    for (size_t i = 0; i < elements; ++i) {
      const std::byte* word = new_words.data() + i * word_bytes;
      const std::byte* old_word = old_words.data() + i * word_bytes;
      if (std::memcmp(word, old_word, word_bytes) != 0) {
        positions.push_back(static_cast<uint16_t>(i % kRunElements));
        changed_words.insert(changed_words.end(), word, word + word_bytes);
        replaced_words.insert(replaced_words.end(), old_word, old_word + word_bytes);
      }
      if ((i + 1) % kRunElements == 0 || i + 1 == elements) run_ends.push_back(positions.size());
      uint64_t earlier = 0;
      std::memcpy(&earlier, old_word, word_bytes);
      const uint64_t hash = (i + 1) * 0x9E3779B97F4A7C15;
      const auto kind = static_cast<unsigned>(hash >> 61);
      if (kind == 1) earlier -= 1 + (hash >> 40) % 9;
      if (kind == 2) earlier += 1 + (hash >> 40) % 9;
      if (kind == 3) std::memcpy(&earlier, word, word_bytes);
      if (kind == 4 && hash % 8 == 0) earlier = hash >> 7;
      std::memcpy(earlier_words.data() + i * word_bytes, &earlier, word_bytes);
    }
  }

  uint64_t elements() const { return new_words.size() / dtype_info(dtype).word_bytes; }
  TileChange view() const {
    return {dtype,     elements(), log2_block,    old_words,      new_words,
            positions, run_ends,   changed_words, replaced_words, {}};
  }
  TileChange view_with_past() const {
    TileChange change = view();
    change.earlier_words = earlier_words;
    return change;
  }
};

}  // namespace siltstone::test
