// AVX2. It has no compress instruction, so positions come out of bit masks one by one. Masks are
// collected for a stretch of a few KiB before any is looked at, and then taken apart four bits at a
// time whether there are four or not: branches that follow the data, which at a few per cent of
// changes are mispredicted all the time, are few and far from the loop that reads memory.
#include <immintrin.h>

#include <cstring>

#include "base/bf16.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kStepBytes = 64;
constexpr size_t kStretchSteps = 32;
constexpr size_t kAtOnce = 4;
static_assert(kAtOnce <= kDiffSlack);

__m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Asks for what comes after the stretch in hand, so that memory does not wait while bits are taken
// apart. May name addresses behind the buffers: a prefetch never faults.
void prefetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p) + kStretchSteps * kStepBytes, _MM_HINT_T0);
}

uint32_t mask_of(__m256i bytes) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
}

// One bit per word of 64 bytes: set where they differ.
template <size_t kWordBytes>
uint64_t differ(__m256i x0, __m256i x1, __m256i y0, __m256i y1) {
  if constexpr (kWordBytes == 1) {
    const uint32_t low = mask_of(_mm256_cmpeq_epi8(x0, y0));
    const uint32_t high = mask_of(_mm256_cmpeq_epi8(x1, y1));
    return ~(low | uint64_t{high} << 32);
  } else if constexpr (kWordBytes == 2) {
    const __m256i packed =
        _mm256_packs_epi16(_mm256_cmpeq_epi16(x0, y0), _mm256_cmpeq_epi16(x1, y1));
    // packs works within 128-bit halves: put the quarters back in order.
    return static_cast<uint32_t>(~mask_of(_mm256_permute4x64_epi64(packed, 0xd8)));
  } else if constexpr (kWordBytes == 4) {
    const int low = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x0, y0)));
    const int high = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x1, y1)));
    return static_cast<uint64_t>(~(low | high << 8) & 0xffff);
  } else {
    const int low = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x0, y0)));
    const int high = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x1, y1)));
    return static_cast<uint64_t>(~(low | high << 4) & 0xff);
  }
}

// 16 fp32 words rounded to bf16 (base/bf16.h).
__m256i cast16(const std::byte* f32) {
  const auto round = [](__m256i x) {
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(x, odd), _mm256_set1_epi32(0x7fff));
    const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi32(0x7fffffff));
    const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
    const __m256i quiet = _mm256_or_si256(x, _mm256_set1_epi32(0x400000));
    return _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
  };
  const __m256i packed = _mm256_packus_epi32(round(load(f32)), round(load(f32 + 32)));
  // packus works within 128-bit halves: put the quarters back in order.
  return _mm256_permute4x64_epi64(packed, 0xd8);
}

uint16_t cast1(const std::byte* f32) {
  uint32_t word;
  std::memcpy(&word, f32, sizeof word);
  return bf16_of_f32(word);
}

void store(std::byte* to, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
}

// The steps of one stretch that differ, collected without a branch.
struct Stretch {
  uint64_t mask[kStretchSteps + 1];
  size_t begin[kStretchSteps + 1];  // the step's first word
  size_t steps = 0;
};

// What the words of the next version are, and where they go beside the list.
enum class Next { kPlain, kCast, kCastKeep };

// Unless kPlain, `next` has fp32 words, and `rounded` those words rounded: of the whole run if they
// are kept, else of the stretch in hand.
template <size_t kWordBytes, bool kRefresh, class Base, Next kNext = Next::kPlain>
struct Diff {
  static constexpr bool kCast = kNext != Next::kPlain;
  static constexpr size_t kStep = kStepBytes / kWordBytes;

  const std::byte* next;
  Base* base;
  uint16_t* positions;
  std::byte* words;
  size_t count = 0;
  std::byte* rounded = nullptr;
  size_t rounded_begin = 0;

  void begin_rounding(size_t begin) {
    if constexpr (kNext == Next::kCast) rounded_begin = begin;
  }
  std::byte* rounded_word(size_t i) const { return rounded + (i - rounded_begin) * kWordBytes; }
  // Where word `i` of the next version stands, after compare() has come to it.
  const std::byte* next_word(size_t i) const {
    if constexpr (kCast) return rounded_word(i);
    return next + i * kWordBytes;
  }

  // Compares words [begin, end), a whole number of steps, at most a stretch.
  void compare(size_t begin, size_t end, Stretch* stretch) {
    stretch->steps = 0;
    begin_rounding(begin);
    for (size_t i = begin; i < end; i += kStep) {
      const std::byte* y = base + i * kWordBytes;
      prefetch(y);
      __m256i x0;
      __m256i x1;
      if constexpr (kCast) {
        prefetch(next + i * 4);
        prefetch(next + i * 4 + 64);
        x0 = cast16(next + i * 4);
        x1 = cast16(next + i * 4 + 64);
        store(rounded_word(i), x0);
        store(rounded_word(i) + 32, x1);
      } else {
        prefetch(next + i * kWordBytes);
        x0 = load(next + i * kWordBytes);
        x1 = load(next + i * kWordBytes + 32);
      }
      const uint64_t mask = differ<kWordBytes>(x0, x1, load(y), load(y + 32));
      stretch->mask[stretch->steps] = mask;
      stretch->begin[stretch->steps] = i;
      stretch->steps += mask != 0;
    }
  }

  void list(uint64_t mask, size_t begin) {
    const size_t end = count + static_cast<size_t>(_mm_popcnt_u64(mask));
    size_t slot = count;
    do {
      // Bits that are not there any more give the step's first word: harmless, overwritten next.
      for (size_t k = 0; k < kAtOnce; ++k, ++slot) {
        const size_t at = begin + (_tzcnt_u64(mask) & (kStep - 1));
        mask = _blsr_u64(mask);
        positions[slot] = static_cast<uint16_t>(at);
        std::memcpy(words + slot * kWordBytes, next_word(at), kWordBytes);
      }
    } while (slot < end);
    count = end;
  }

  void refresh(size_t begin) const {
    const std::byte* from = next_word(begin);
    store(base + begin * kWordBytes, load(from));
    store(base + begin * kWordBytes + 32, load(from + 32));
  }

  // Words [begin, end), fewer than a step.
  void tail(size_t begin, size_t end) {
    begin_rounding(begin);
    for (size_t i = begin; i < end; ++i) {
      if constexpr (kCast) {
        const uint16_t word = cast1(next + i * 4);
        std::memcpy(rounded_word(i), &word, sizeof word);
      }
      const std::byte* from = next_word(i);
      if (std::memcmp(from, base + i * kWordBytes, kWordBytes) == 0) continue;
      positions[count] = static_cast<uint16_t>(i);
      std::memcpy(words + count * kWordBytes, from, kWordBytes);
      if constexpr (kRefresh) std::memcpy(base + i * kWordBytes, from, kWordBytes);
      ++count;
    }
  }
};

template <size_t kWordBytes, bool kRefresh, class Base, Next kNext>
size_t diff_run(Diff<kWordBytes, kRefresh, Base, kNext> diff, size_t n) {
  using D = decltype(diff);
  constexpr size_t kStretch = kStretchSteps * D::kStep;
  Stretch stretch;
  const size_t whole = n - n % D::kStep;
  for (size_t begin = 0; begin < whole; begin += kStretch) {
    diff.compare(begin, whole - begin < kStretch ? whole : begin + kStretch, &stretch);
    for (size_t k = 0; k < stretch.steps; ++k) {
      diff.list(stretch.mask[k], stretch.begin[k]);
      if constexpr (kRefresh) diff.refresh(stretch.begin[k]);
    }
  }
  diff.tail(whole, n);
  return diff.count;
}

template <size_t kWordBytes, bool kRefresh, class Base>
size_t diff_words(const std::byte* next, Base* base, size_t n, uint16_t* positions,
                  std::byte* words) {
  return diff_run(Diff<kWordBytes, kRefresh, Base>{next, base, positions, words}, n);
}

template <size_t kWordBytes>
constexpr Kernels::Diff kDiff = diff_words<kWordBytes, false, const std::byte>;
template <size_t kWordBytes>
constexpr Kernels::DiffRefresh kDiffRefresh = diff_words<kWordBytes, true, std::byte>;

template <bool kRefresh, class Base>
size_t diff_cast(const std::byte* next, Base* base, size_t n, uint16_t* positions,
                 std::byte* words) {
  alignas(32) std::byte rounded[kStretchSteps * kStepBytes];
  Diff<2, kRefresh, Base, Next::kCast> diff{next, base, positions, words};
  diff.rounded = rounded;
  return diff_run(diff, n);
}

size_t diff_cast_keep(const std::byte* next, const std::byte* base, size_t n, uint16_t* positions,
                      std::byte* words, std::byte* rounded) {
  Diff<2, false, const std::byte, Next::kCastKeep> diff{next, base, positions, words};
  diff.rounded = rounded;
  return diff_run(diff, n);
}

void cast_words(const std::byte* f32, size_t n, std::byte* bf16) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16) store(bf16 + i * 2, cast16(f32 + i * 4));
  for (; i < n; ++i) {
    const uint16_t word = cast1(f32 + i * 4);
    std::memcpy(bf16 + i * 2, &word, sizeof word);
  }
}

__m256i term(__m256i word, __m256i key) {
  const __m256i sums = _mm256_add_epi32(word, key);
  return _mm256_mul_epu32(sums, _mm256_srli_epi64(sums, 32));
}

uint64_t sum_of(__m256i lanes) {
  const __m128i half =
      _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(half)) +
         static_cast<uint64_t>(_mm_extract_epi64(half, 1));
}

struct Lane2 {
  __m256i a = _mm256_setzero_si256();
  __m256i b = _mm256_setzero_si256();
};

void add_terms(Lane2* sum, __m256i word, const uint64_t* key) {
  sum->a = _mm256_add_epi64(sum->a, term(word, load(key)));
  sum->b = _mm256_add_epi64(sum->b, term(word, load(key + kDigestLaneShift)));
}

// Words [begin, begin + count) of one block, times the block's factors.
Sum128 digest_block(const std::byte* bytes, size_t begin, size_t count, uint64_t block) {
  constexpr size_t kLaneWords = 4;
  Lane2 even;
  Lane2 odd;
  const uint64_t* key = kDigestKeys.key + begin;
  size_t i = 0;
  for (; i + 2 * kLaneWords <= count; i += 2 * kLaneWords) {
    prefetch(bytes + i * 8);
    add_terms(&even, load(bytes + i * 8), key + i);
    add_terms(&odd, load(bytes + i * 8 + 32), key + i + kLaneWords);
  }
  uint64_t a = sum_of(_mm256_add_epi64(even.a, odd.a));
  uint64_t b = sum_of(_mm256_add_epi64(even.b, odd.b));
  for (; i < count; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes + i * 8, sizeof word);
    a += digest_term(word, key[i]);
    b += digest_term(word, key[i + kDigestLaneShift]);
  }
  Sum128 sum;
  sum.a = a * digest_factor_a(block);
  sum.b = b * digest_factor_b(block);
  return sum;
}

Sum128 digest_words(const std::byte* bytes, size_t n_words, uint64_t first_word) {
  Sum128 sum;
  while (n_words > 0) {
    const size_t begin = first_word % kDigestBlockWords;
    const size_t room = kDigestBlockWords - begin;
    const size_t count = n_words < room ? n_words : room;
    const Sum128 part = digest_block(bytes, begin, count, first_word / kDigestBlockWords);
    sum.a += part.a;
    sum.b += part.b;
    bytes += count * 8;
    n_words -= count;
    first_word += count;
  }
  return sum;
}

}  // namespace

constinit const Kernels kAvx2Kernels = {
    .name = "avx2",
    .diff = {kDiff<1>, kDiff<2>, kDiff<4>, kDiff<8>},
    .diff_refresh = {kDiffRefresh<1>, kDiffRefresh<2>, kDiffRefresh<4>, kDiffRefresh<8>},
    .diff_cast = diff_cast<false, const std::byte>,
    .diff_cast_refresh = diff_cast<true, std::byte>,
    .diff_cast_keep = diff_cast_keep,
    .cast = cast_words,
    .digest = digest_words,
    .classify = kAvx2Classify,
    .locate = avx2_locate,
    .find_tables = kScalarFindTables,
    .take_steps = kScalarTakeSteps,
    .make_steps = kScalarMakeSteps,
    .decode_symbols = avx2_decode_symbols,
    .encode_symbols = scalar_encode_symbols,
};

}  // namespace siltstone
