// The definition of every kernel, in plain C++: the other sets must give the same bits.
#include <algorithm>
#include <cstring>

#include "base/bf16.h"
#include "base/bytes.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr DigestKeys make_digest_keys() {
  DigestKeys keys{};
  uint64_t state = kDigestSeed;
  for (uint64_t& key : keys.key) {
    key = splitmix64(state);
    state += kSplitMixStep;
  }
  return keys;
}

// How a word of the next version comes out of memory.
template <class Word>
struct Plain {
  static constexpr size_t kStride = sizeof(Word);
  static Word load(const std::byte* from) { return load_le<Word>(from); }
};
struct Cast {
  static constexpr size_t kStride = sizeof(uint32_t);
  static uint16_t load(const std::byte* from) { return bf16_of_f32(load_le<uint32_t>(from)); }
};

template <class Word, class Next, bool kRefresh, class Base>
size_t diff_words(const std::byte* next, Base* base, size_t n, uint16_t* positions,
                  std::byte* words) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    const Word word = Next::load(next + i * Next::kStride);
    if (word == load_le<Word>(base + i * sizeof(Word))) continue;
    positions[count] = static_cast<uint16_t>(i);
    store_le(words + count * sizeof(Word), word);
    // Only words that differ are written: the others' cache lines and pages stay clean.
    if constexpr (kRefresh) store_le(base + i * sizeof(Word), word);
    ++count;
  }
  return count;
}

template <class Word>
constexpr Kernels::Diff kDiff = diff_words<Word, Plain<Word>, false, const std::byte>;
template <class Word>
constexpr Kernels::DiffRefresh kDiffRefresh = diff_words<Word, Plain<Word>, true, std::byte>;

void cast_words(const std::byte* f32, size_t n, std::byte* bf16) {
  for (size_t i = 0; i < n; ++i) store_le(bf16 + i * 2, Cast::load(f32 + i * Cast::kStride));
}

Sum128 digest_words(const std::byte* bytes, size_t n_words, uint64_t first_word) {
  Sum128 sum;
  size_t done = 0;
  while (done < n_words) {
    const uint64_t block = (first_word + done) / kDigestBlockWords;
    const size_t begin = (first_word + done) % kDigestBlockWords;
    const size_t count = std::min<size_t>(n_words - done, kDigestBlockWords - begin);
    uint64_t a = 0;
    uint64_t b = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto word = load_le<uint64_t>(bytes + (done + i) * sizeof(uint64_t));
      a += digest_term(word, kDigestKeys.key[begin + i]);
      b += digest_term(word, kDigestKeys.key[begin + i + kDigestLaneShift]);
    }
    sum.a += a * digest_factor_a(block);
    sum.b += b * digest_factor_b(block);
    done += count;
  }
  return sum;
}

size_t diff_cast_keep(const std::byte* next, const std::byte* base, size_t n, uint16_t* positions,
                      std::byte* words, std::byte* rounded) {
  cast_words(next, n, rounded);
  return diff_words<uint16_t, Plain<uint16_t>, false>(rounded, base, n, positions, words);
}

}  // namespace

constinit const DigestKeys kDigestKeys = make_digest_keys();

constinit const Kernels kScalarKernels = {
    .name = "scalar",
    .diff = {kDiff<uint8_t>, kDiff<uint16_t>, kDiff<uint32_t>, kDiff<uint64_t>},
    .diff_refresh = {kDiffRefresh<uint8_t>, kDiffRefresh<uint16_t>, kDiffRefresh<uint32_t>,
                     kDiffRefresh<uint64_t>},
    .diff_cast = diff_words<uint16_t, Cast, false, const std::byte>,
    .diff_cast_refresh = diff_words<uint16_t, Cast, true, std::byte>,
    .diff_cast_keep = diff_cast_keep,
    .cast = cast_words,
    .digest = digest_words,
    .classify = kScalarClassify,
    .locate = scalar_locate,
    .find_tables = kScalarFindTables,
    .take_steps = kScalarTakeSteps,
    .make_steps = kScalarMakeSteps,
    .decode_symbols = scalar_decode_symbols,
    .encode_symbols = scalar_encode_symbols,
};

}  // namespace siltstone
