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

  PlainChange(DType dtype_in, unsigned log2_block_in, std::vector<std::byte> old_in,
              std::vector<std::byte> new_in)
      : dtype(dtype_in),
        log2_block(log2_block_in),
        old_words(std::move(old_in)),
        new_words(std::move(new_in)) {
    const size_t word_bytes = dtype_info(dtype).word_bytes;
    const size_t elements = new_words.size() / word_bytes;
    for (size_t i = 0; i < elements; ++i) {
      const std::byte* word = new_words.data() + i * word_bytes;
      const std::byte* old_word = old_words.data() + i * word_bytes;
      if (std::memcmp(word, old_word, word_bytes) != 0) {
        positions.push_back(static_cast<uint16_t>(i % kRunElements));
        changed_words.insert(changed_words.end(), word, word + word_bytes);
        replaced_words.insert(replaced_words.end(), old_word, old_word + word_bytes);
      }
      if ((i + 1) % kRunElements == 0 || i + 1 == elements) run_ends.push_back(positions.size());
    }
  }

  uint64_t elements() const { return new_words.size() / dtype_info(dtype).word_bytes; }
  TileChange view() const {
    return {dtype,     elements(), log2_block,    old_words,     new_words,
            positions, run_ends,   changed_words, replaced_words};
  }
};

}  // namespace siltstone::test
