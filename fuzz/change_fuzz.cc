// A change made up from the input is coded by every codec and read back: the words must be those
// that went in, and every set of kernels must write and read the same bytes.
//
// Input: dtype, size of the state (2 bytes), seed of the old words (4 bytes); then changes: a gap,
// and what happens to the word there.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "delta/diff.h"
#include "delta/kernels/kernels.h"
#include "delta/section.h"
#include "old_words.h"

namespace siltstone {
namespace {

constexpr size_t kPrefixBytes = 7;
constexpr uint64_t kMaxElements = 20'000;

uint64_t number(const uint8_t* bytes, unsigned count) {
  uint64_t out = 0;
  for (unsigned i = 0; i < count; ++i) out |= uint64_t{bytes[i]} << (8 * i);
  return out;
}

struct Made {
  DType dtype;
  uint64_t elements;
  std::vector<std::byte> old_words;
  std::vector<std::byte> new_words;
  std::vector<std::byte> earlier_words;
};

// Most inputs make small states, to be fast; an even size byte makes one of several windows.
Made make(const uint8_t* data, size_t size) {
  const std::span<const DTypeInfo> dtypes = all_dtypes();
  Made made;
  made.dtype = dtypes[data[0] % dtypes.size()].dtype;
  const uint64_t asked = number(data + 1, 2);
  made.elements = 1 + (data[1] % 16 == 0 ? asked % kMaxElements : asked % 300);
  made.old_words = make_old_words(made.dtype, made.elements, number(data + 3, 4));
  made.new_words = made.old_words;
  made.earlier_words = made.old_words;
  const unsigned word_bytes = dtype_info(made.dtype).word_bytes;
  uint64_t state = number(data + 3, 4) | 1;
  uint64_t at = 0;
  for (size_t i = kPrefixBytes; i + 2 <= size; i += 2) {
    at += data[i] < 192 ? data[i] : (data[i] - 191) * 64;
    const unsigned how = data[i + 1];
    // 1 to 64 words in a row, so that short inputs reach dense blocks
    const uint64_t end = std::min(made.elements, at + 1 + (how >> 2));
    for (; at < end; ++at) {
      std::byte* word = made.new_words.data() + at * word_bytes;
      uint64_t value = number(reinterpret_cast<const uint8_t*>(word), word_bytes);
      const uint64_t random = next_random(&state);
      switch (how & 3) {
        case 0:
          value += random % 2 == 0 ? 1 : ~uint64_t{0};
          break;
        case 1:
          value += random % 16;
          break;
        case 2:
          value = random;
          break;
        default:
          value -= random % 3 == 0 ? random % 1000 : 0;
      }
      for (unsigned b = 0; b < word_bytes; ++b) word[b] = static_cast<std::byte>(value >> (8 * b));
      // A word that moves mostly moved before, as far or a little further, down if up or not.
      std::byte* earlier = made.earlier_words.data() + at * word_bytes;
      const uint64_t old_value = number(reinterpret_cast<const uint8_t*>(earlier), word_bytes);
      const uint64_t back = old_value + (random % 8 < 5 ? old_value - value : value - old_value);
      const uint64_t was = random % 16 == 0 ? old_value : back + random % 32 / 16;
      for (unsigned b = 0; b < word_bytes; ++b) earlier[b] = static_cast<std::byte>(was >> (8 * b));
    }
  }
  return made;
}

void read_back(const Made& made, ByteSpan bytes) {
  const auto word_bytes = dtype_info(made.dtype).word_bytes;
  for (const Kernels* set : runnable_kernels()) {
    use_kernels(*set);
    const Result<Section> section =
        Section::open(bytes, {made.elements, 1, word_bytes}, made.dtype);
    if (!section) std::abort();
    std::vector<std::byte> words = made.old_words;
    const Result<uint64_t> changed = section->apply(0, words, made.earlier_words);
    if (!changed || *changed != section->header().changed || words != made.new_words) std::abort();
  }
}

void code(const Made& made) {
  const unsigned word_bytes = dtype_info(made.dtype).word_bytes;
  for (const Codec* codec : all_codecs()) {
    std::vector<std::byte> first;
    for (const Kernels* set : runnable_kernels()) {
      use_kernels(*set);
      ChangeList changes(word_bytes);
      changes.append(made.new_words, made.old_words);
      if (changes.changed() == 0) return;
      TileChange change = tile_change(made.dtype, made.old_words, made.new_words, changes);
      change.earlier_words = made.earlier_words;
      std::vector<std::byte> bytes;
      if (!append_section(change, {0, made.elements, 0, 1}, {}, {}, codec, &bytes)) std::abort();
      if (first.empty()) first = bytes;
      if (bytes != first) std::abort();
    }
    read_back(made, first);
  }
}

}  // namespace
}  // namespace siltstone

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= siltstone::kPrefixBytes) siltstone::code(siltstone::make(data, size));
  return 0;
}
