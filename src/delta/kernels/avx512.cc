// AVX-512 with VBMI2. A run is worked through in stretches, in one of two ways that give the same
// result; how many words differed in the stretch before says which will be faster:
//
//   sparse: compress positions only, then visit the few words listed while they are in L1;
//   dense:  compress words too, and refresh with a masked store, without any branch that depends on
//           the data (but one that is nearly never taken below 25 % of changes).
//
// Stores are narrow as long as they may be, because a 64-byte store that straddles cache lines,
// as one at a compressed position does, takes several cycles. Compression goes to a register and
// then to memory: VPCOMPRESS with a memory destination is microcoded on Zen 4.
//
// All of it is there twice: some CPUs read faster if they are asked for memory ahead of its use,
// and others slower (docs/decisions/0018).
#include <immintrin.h>

#include <cstring>

#include "base/bf16.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

// Modulo 2^64. GCC 12's own reduction adds signed lanes, whose overflow sanitizers rightly report.
uint64_t sum_lanes(__m512i lanes) {
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, lanes);
  uint64_t sum = 0;
  for (const uint64_t word : words) sum += word;
  return sum;
}

constexpr size_t kStepBytes = 64;
constexpr size_t kStretchBytes = 64 * kStepBytes;
// Changes in a stretch from which the dense way is faster. A masked store to a page that is mapped
// but not yet writable (a file's, a forked process's) costs 150 ns even if its mask is empty; where
// a page has as many changes as this, soon one of them makes it writable.
constexpr size_t kDenseFrom = 32;
constexpr size_t kNarrow = 8;  // changes that a narrow store holds
constexpr size_t kAheadBytes = 2048;

alignas(64) constexpr uint16_t kIota[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                            11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
alignas(64) constexpr uint8_t kByteIota[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

// May name addresses behind the buffers: a prefetch never faults.
template <bool kAhead>
void prefetch(const std::byte* p) {
  if constexpr (kAhead) _mm_prefetch(reinterpret_cast<const char*>(p) + kAheadBytes, _MM_HINT_T0);
}

void store128(void* p, __m128i x) {
  _mm_storeu_si128(static_cast<__m128i*>(p), x);
}
void store256(void* p, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), x);
}

// Positions of the upper halves of 2 times 16 words of 4 bytes.
alignas(64) constexpr uint16_t kUpperHalves[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                   23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                   45, 47, 49, 51, 53, 55, 57, 59, 61, 63};

// 32 fp32 words rounded to bf16 (base/bf16.h).
__m512i cast32(__m512i low, __m512i high) {
  const auto round = [](__m512i x) {
    constexpr int kNan = 0x81;  // quiet or signalling
    const __mmask16 nan = _mm512_fpclass_ps_mask(_mm512_castsi512_ps(x), kNan);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(x, odd), _mm512_set1_epi32(0x7fff));
    return _mm512_mask_or_epi32(sum, nan, x, _mm512_set1_epi32(0x400000));
  };
  return _mm512_permutex2var_epi16(round(low), _mm512_load_si512(kUpperHalves), round(high));
}

__m512i load_cast(const std::byte* f32) {
  return cast32(_mm512_loadu_si512(f32), _mm512_loadu_si512(f32 + kStepBytes));
}

__m512i load_cast(__mmask32 m, const std::byte* f32) {
  return cast32(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(m), f32),
                _mm512_maskz_loadu_epi32(static_cast<__mmask16>(m >> 16), f32 + kStepBytes));
}

// Per word size: masks, compares and compressions. `positions` and `words` write what the mask
// selects, `count` of them, of the step that starts at word `i`.
template <size_t kWordBytes>
struct Lanes;

template <>
struct Lanes<1> {
  using Mask = __mmask64;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi8(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi8_mask(x, y); }
  static void positions(uint16_t* out, Mask m, size_t count, size_t i) {
    const __m512i iota = _mm512_load_si512(kByteIota);
    const __m128i first = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(m, iota));
    const auto start = static_cast<short>(i);
    store128(out, _mm_add_epi16(_mm_cvtepu8_epi16(first), _mm_set1_epi16(start)));
    if (count <= kNarrow) return;
    const auto low = static_cast<__mmask32>(m);
    const auto high = static_cast<__mmask32>(m >> 32);
    __m512i at = _mm512_add_epi16(_mm512_load_si512(kIota), _mm512_set1_epi16(start));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(low, at));
    at = _mm512_add_epi16(at, _mm512_set1_epi16(32));
    _mm512_storeu_si512(out + _mm_popcnt_u32(low), _mm512_maskz_compress_epi16(high, at));
  }
  static void words(std::byte* out, Mask m, size_t count, __m512i x) {
    const __m512i found = _mm512_maskz_compress_epi8(m, x);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(found));
    if (count > kNarrow) _mm512_storeu_si512(out, found);
  }
};

template <>
struct Lanes<2> {
  using Mask = __mmask32;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi16(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi16_mask(x, y); }
  static void positions(uint16_t* out, Mask m, size_t count, size_t i) {
    const __m512i at =
        _mm512_add_epi16(_mm512_load_si512(kIota), _mm512_set1_epi16(static_cast<short>(i)));
    const __m512i found = _mm512_maskz_compress_epi16(m, at);
    store128(out, _mm512_castsi512_si128(found));
    if (count > kNarrow) _mm512_storeu_si512(out, found);
  }
  static void words(std::byte* out, Mask m, size_t count, __m512i x) {
    const __m512i found = _mm512_maskz_compress_epi16(m, x);
    store128(out, _mm512_castsi512_si128(found));
    if (count > kNarrow) _mm512_storeu_si512(out, found);
  }
};

template <>
struct Lanes<4> {
  using Mask = __mmask16;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi32(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi32_mask(x, y); }
  static void positions(uint16_t* out, Mask m, size_t count, size_t i) {
    const __m256i iota = _mm256_load_si256(reinterpret_cast<const __m256i*>(kIota));
    const __m256i at = _mm256_add_epi16(iota, _mm256_set1_epi16(static_cast<short>(i)));
    const __m256i found = _mm256_maskz_compress_epi16(m, at);
    store128(out, _mm256_castsi256_si128(found));
    if (count > kNarrow) store256(out, found);
  }
  static void words(std::byte* out, Mask m, size_t count, __m512i x) {
    const __m512i found = _mm512_maskz_compress_epi32(m, x);
    store256(out, _mm512_castsi512_si256(found));
    if (count > kNarrow) _mm512_storeu_si512(out, found);
  }
};

template <>
struct Lanes<8> {
  using Mask = __mmask8;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi64(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi64_mask(x, y); }
  static void positions(uint16_t* out, Mask m, size_t /*count*/, size_t i) {
    const __m128i iota = _mm_load_si128(reinterpret_cast<const __m128i*>(kIota));
    const __m128i at = _mm_add_epi16(iota, _mm_set1_epi16(static_cast<short>(i)));
    store128(out, _mm_maskz_compress_epi16(m, at));
  }
  static void words(std::byte* out, Mask m, size_t /*count*/, __m512i x) {
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi64(m, x));
  }
};

// What the words of the next version are, and where they go beside the list.
enum class Next { kPlain, kCast, kCastKeep };

// Unless kPlain, `next` has fp32 words, which are rounded as they are loaded, and then kept or not.
template <bool kAhead, size_t kWordBytes, bool kRefresh, class Base, Next kNext = Next::kPlain>
struct Diff {
  static constexpr bool kCast = kNext != Next::kPlain;
  using L = Lanes<kWordBytes>;
  using Mask = typename L::Mask;
  static constexpr size_t kStep = kStepBytes / kWordBytes;
  static constexpr size_t kStretch = kStretchBytes / kWordBytes;

  const std::byte* next;
  Base* base;
  uint16_t* positions;
  std::byte* words;
  std::byte* rounded = nullptr;
  size_t count = 0;

  __m512i load_next(size_t i) const {
    prefetch<kAhead>(base + i * kWordBytes);
    if constexpr (kCast) {
      prefetch<kAhead>(next + i * 4);
      prefetch<kAhead>(next + i * 4 + kStepBytes);
      const __m512i x = load_cast(next + i * 4);
      if constexpr (kNext == Next::kCastKeep) _mm512_storeu_si512(rounded + i * kWordBytes, x);
      return x;
    } else {
      prefetch<kAhead>(next + i * kWordBytes);
      return _mm512_loadu_si512(next + i * kWordBytes);
    }
  }
  __m512i load_next(Mask m, size_t i) const {
    if constexpr (kCast) {
      const __m512i x = load_cast(m, next + i * 4);
      if constexpr (kNext == Next::kCastKeep) {
        _mm512_mask_storeu_epi16(rounded + i * kWordBytes, m, x);
      }
      return x;
    } else {
      return L::load(m, next + i * kWordBytes);
    }
  }
  void copy_next(std::byte* to, size_t i) const {
    if constexpr (kCast) {
      uint32_t word;
      std::memcpy(&word, next + i * 4, sizeof word);
      const uint16_t bf16 = bf16_of_f32(word);
      std::memcpy(to, &bf16, sizeof bf16);
    } else {
      std::memcpy(to, next + i * kWordBytes, kWordBytes);
    }
  }

  // Words [begin, end): any number of them.
  void sparse(size_t begin, size_t end) {
    size_t found = count;
    const auto visit = [&](size_t i, __m512i x, __m512i y) {
      const Mask m = L::differ(x, y);
      const auto differing = static_cast<size_t>(_mm_popcnt_u64(m));
      L::positions(positions + found, m, differing, i);
      found += differing;
    };
    size_t i = begin;
    for (; i + kStep <= end; i += kStep) {
      visit(i, load_next(i), _mm512_loadu_si512(base + i * kWordBytes));
    }
    if (i < end) {
      const auto rest = static_cast<Mask>((uint64_t{1} << (end - i)) - 1);
      visit(i, load_next(rest, i), L::load(rest, base + i * kWordBytes));
    }
    for (; count < found; ++count) {
      const size_t at = positions[count];
      std::byte word[kWordBytes];
      copy_next(word, at);
      std::memcpy(words + count * kWordBytes, word, kWordBytes);
      if constexpr (kRefresh) std::memcpy(base + at * kWordBytes, word, kWordBytes);
    }
  }

  // Words [begin, begin + kStretch).
  void dense(size_t begin) {
    for (size_t i = begin; i < begin + kStretch; i += kStep) {
      const __m512i x = load_next(i);
      const __m512i y = _mm512_loadu_si512(base + i * kWordBytes);
      const Mask m = L::differ(x, y);
      const auto differing = static_cast<size_t>(_mm_popcnt_u64(m));
      L::words(words + count * kWordBytes, m, differing, x);
      L::positions(positions + count, m, differing, i);
      if constexpr (kRefresh) {
        // Masks of 4-byte lanes are the cheapest, and whatever else they cover is equal anyway.
        _mm512_mask_storeu_epi32(base + i * kWordBytes, _mm512_cmpneq_epi32_mask(x, y), x);
      }
      count += differing;
    }
  }
};

template <class D>
size_t diff_run(D diff, size_t n) {
  size_t in_last_stretch = 0;
  for (size_t begin = 0; begin < n; begin += D::kStretch) {
    const size_t before = diff.count;
    const size_t left = n - begin;
    if (in_last_stretch >= kDenseFrom && left >= D::kStretch) {
      diff.dense(begin);
    } else {
      diff.sparse(begin, left < D::kStretch ? n : begin + D::kStretch);
    }
    in_last_stretch = diff.count - before;
  }
  return diff.count;
}

template <bool kAhead, size_t kWordBytes, Next kNext = Next::kPlain>
size_t diff(const std::byte* next, const std::byte* base, size_t n, uint16_t* positions,
            std::byte* words) {
  using D = Diff<kAhead, kWordBytes, false, const std::byte, kNext>;
  return diff_run(D{next, base, positions, words}, n);
}

template <bool kAhead, size_t kWordBytes, Next kNext = Next::kPlain>
size_t diff_refresh(const std::byte* next, std::byte* base, size_t n, uint16_t* positions,
                    std::byte* words) {
  using D = Diff<kAhead, kWordBytes, true, std::byte, kNext>;
  return diff_run(D{next, base, positions, words}, n);
}

template <bool kAhead>
size_t diff_cast_keep(const std::byte* next, const std::byte* base, size_t n, uint16_t* positions,
                      std::byte* words, std::byte* rounded) {
  using D = Diff<kAhead, 2, false, const std::byte, Next::kCastKeep>;
  return diff_run(D{next, base, positions, words, rounded}, n);
}

void cast_words(const std::byte* f32, size_t n, std::byte* bf16) {
  size_t i = 0;
  for (; i + 32 <= n; i += 32) _mm512_storeu_si512(bf16 + i * 2, load_cast(f32 + i * 4));
  if (i < n) {
    const auto rest = static_cast<__mmask32>((uint64_t{1} << (n - i)) - 1);
    _mm512_mask_storeu_epi16(bf16 + i * 2, rest, load_cast(rest, f32 + i * 4));
  }
}

__m512i term(__m512i word, __m512i key) {
  const __m512i sums = _mm512_add_epi32(word, key);
  return _mm512_mul_epu32(sums, _mm512_srli_epi64(sums, 32));
}

struct Lane2 {
  __m512i a = _mm512_setzero_si512();
  __m512i b = _mm512_setzero_si512();
};

void add_terms(Lane2* sum, __m512i word, const uint64_t* key) {
  sum->a = _mm512_add_epi64(sum->a, term(word, _mm512_loadu_si512(key)));
  sum->b = _mm512_add_epi64(sum->b, term(word, _mm512_loadu_si512(key + kDigestLaneShift)));
}

// Words [begin, begin + count) of one block, times the block's factors.
template <bool kAhead>
Sum128 digest_block(const std::byte* bytes, size_t begin, size_t count, uint64_t block) {
  constexpr size_t kLaneWords = 8;
  Lane2 even;
  Lane2 odd;
  const uint64_t* key = kDigestKeys.key + begin;
  size_t i = 0;
  for (; i + 2 * kLaneWords <= count; i += 2 * kLaneWords) {
    prefetch<kAhead>(bytes + i * 8);
    prefetch<kAhead>(bytes + i * 8 + kStepBytes);
    add_terms(&even, _mm512_loadu_si512(bytes + i * 8), key + i);
    add_terms(&odd, _mm512_loadu_si512(bytes + i * 8 + kStepBytes), key + i + kLaneWords);
  }
  for (; i < count; i += kLaneWords) {
    const size_t left = count - i;
    const auto rest = static_cast<__mmask8>(left < kLaneWords ? (1U << left) - 1 : 0xff);
    const __m512i word = _mm512_maskz_loadu_epi64(rest, bytes + i * 8);
    const __m512i key_a = _mm512_maskz_loadu_epi64(rest, key + i);
    const __m512i key_b = _mm512_maskz_loadu_epi64(rest, key + i + kDigestLaneShift);
    // Past the end word and key are zero, and so is their term.
    even.a = _mm512_add_epi64(even.a, term(word, key_a));
    even.b = _mm512_add_epi64(even.b, term(word, key_b));
  }
  Sum128 sum;
  sum.a = sum_lanes(_mm512_add_epi64(even.a, odd.a)) * digest_factor_a(block);
  sum.b = sum_lanes(_mm512_add_epi64(even.b, odd.b)) * digest_factor_b(block);
  return sum;
}

template <bool kAhead>
Sum128 digest_words(const std::byte* bytes, size_t n_words, uint64_t first_word) {
  Sum128 sum;
  while (n_words > 0) {
    const size_t begin = first_word % kDigestBlockWords;
    const size_t room = kDigestBlockWords - begin;
    const size_t count = n_words < room ? n_words : room;
    const Sum128 part = digest_block<kAhead>(bytes, begin, count, first_word / kDigestBlockWords);
    sum.a += part.a;
    sum.b += part.b;
    bytes += count * 8;
    n_words -= count;
    first_word += count;
  }
  return sum;
}

template <bool kAhead>
constexpr Kernels kSet = {
    .name = "avx512",
    .diff = {diff<kAhead, 1>, diff<kAhead, 2>, diff<kAhead, 4>, diff<kAhead, 8>},
    .diff_refresh = {diff_refresh<kAhead, 1>, diff_refresh<kAhead, 2>, diff_refresh<kAhead, 4>,
                     diff_refresh<kAhead, 8>},
    .diff_cast = diff<kAhead, 2, Next::kCast>,
    .diff_cast_refresh = diff_refresh<kAhead, 2, Next::kCast>,
    .diff_cast_keep = diff_cast_keep<kAhead>,
    .cast = cast_words,
    .digest = digest_words<kAhead>,
    .classify = kAvx512Classify,
    .locate = avx512_locate,
    .find_tables = kAvx512FindTables,
    .take_steps = kAvx512TakeSteps,
    .make_steps = kAvx512MakeSteps,
    .decode_symbols = avx512_decode_symbols,
    .encode_symbols = avx512_encode_symbols,
};

}  // namespace

constinit const Kernels kAvx512Kernels = kSet<false>;
constinit const Kernels kAvx512AheadKernels = kSet<true>;

}  // namespace siltstone
