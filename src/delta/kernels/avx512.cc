// AVX-512 with VBMI2. Branch-free: what a register finds is always compressed and always stored,
// and the count advances by a popcount, so the speed does not depend on how many words differ.
// Compression goes to a register and then to memory whole: VPCOMPRESS with a memory destination is
// microcoded on some CPUs, five to ten times slower.
#include <immintrin.h>

#include "delta/kernels/branch_free.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kStepBytes = 64;

alignas(64) constexpr uint16_t kIota[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                            11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

// What the loop does for one word size: lane masks, compares, compressions and masked stores.
template <size_t kWordBytes>
struct Lanes;

template <>
struct Lanes<1> {
  using Mask = __mmask64;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi8(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi8_mask(x, y); }
  static __m512i compress(Mask m, __m512i x) { return _mm512_maskz_compress_epi8(m, x); }
  static void store(void* p, Mask m, __m512i x) { _mm512_mask_storeu_epi8(p, m, x); }
  static void positions(uint16_t* out, Mask m, __m512i at) {
    const auto low = static_cast<__mmask32>(m);
    const auto high = static_cast<__mmask32>(m >> 32);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(low, at));
    at = _mm512_add_epi16(at, _mm512_set1_epi16(32));
    _mm512_storeu_si512(out + _mm_popcnt_u32(low), _mm512_maskz_compress_epi16(high, at));
  }
};

template <>
struct Lanes<2> {
  using Mask = __mmask32;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi16(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi16_mask(x, y); }
  static __m512i compress(Mask m, __m512i x) { return _mm512_maskz_compress_epi16(m, x); }
  static void store(void* p, Mask m, __m512i x) { _mm512_mask_storeu_epi16(p, m, x); }
  static void positions(uint16_t* out, Mask m, __m512i at) {
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(m, at));
  }
};

template <>
struct Lanes<4> {
  using Mask = __mmask16;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi32(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi32_mask(x, y); }
  static __m512i compress(Mask m, __m512i x) { return _mm512_maskz_compress_epi32(m, x); }
  static void store(void* p, Mask m, __m512i x) { _mm512_mask_storeu_epi32(p, m, x); }
  static void positions(uint16_t* out, Mask m, __m512i at) {
    const __m256i part = _mm512_castsi512_si256(at);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_maskz_compress_epi16(m, part));
  }
};

template <>
struct Lanes<8> {
  using Mask = __mmask8;
  static __m512i load(Mask m, const void* p) { return _mm512_maskz_loadu_epi64(m, p); }
  static Mask differ(__m512i x, __m512i y) { return _mm512_cmpneq_epi64_mask(x, y); }
  static __m512i compress(Mask m, __m512i x) { return _mm512_maskz_compress_epi64(m, x); }
  static void store(void* p, Mask m, __m512i x) { _mm512_mask_storeu_epi64(p, m, x); }
  static void positions(uint16_t* out, Mask m, __m512i at) {
    const __m128i part = _mm512_castsi512_si128(at);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_maskz_compress_epi16(m, part));
  }
};

template <size_t kWordBytes, bool kRefresh, class Base>
size_t diff_words(const std::byte* next, Base* base, size_t n, uint16_t* positions,
                  std::byte* words) {
  using L = Lanes<kWordBytes>;
  using Mask = typename L::Mask;
  constexpr size_t kStep = kStepBytes / kWordBytes;
  const __m512i step = _mm512_set1_epi16(static_cast<short>(kStep));
  __m512i at = _mm512_load_si512(kIota);
  alignas(64) std::byte nowhere[kStepBytes];
  size_t count = 0;
  const auto visit = [&](size_t i, __m512i x, __m512i y) {
    const Mask m = L::differ(x, y);
    _mm512_storeu_si512(words + count * kWordBytes, L::compress(m, x));
    L::positions(positions + count, m, at);
    if constexpr (kRefresh) {
      // The store always happens, but under an empty mask elsewhere: on a page that is mapped but
      // not yet written (a file, a fork's memory) even an empty store is a trap of 150 ns.
      L::store(choose_address(m != 0, base + i * kWordBytes, nowhere), m, x);
    }
    count += static_cast<size_t>(_mm_popcnt_u64(m));
    at = _mm512_add_epi16(at, step);
  };
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    visit(i, _mm512_loadu_si512(next + i * kWordBytes), _mm512_loadu_si512(base + i * kWordBytes));
  }
  if (i < n) {
    const Mask rest = static_cast<Mask>((uint64_t{1} << (n - i)) - 1);
    visit(i, L::load(rest, next + i * kWordBytes), L::load(rest, base + i * kWordBytes));
  }
  return count;
}

template <size_t kWordBytes>
constexpr Kernels::Diff kDiff = diff_words<kWordBytes, false, const std::byte>;
template <size_t kWordBytes>
constexpr Kernels::DiffRefresh kDiffRefresh = diff_words<kWordBytes, true, std::byte>;

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
Sum128 digest_block(const std::byte* bytes, size_t begin, size_t count, uint64_t block) {
  constexpr size_t kLaneWords = 8;
  Lane2 even;
  Lane2 odd;
  const uint64_t* key = kDigestKeys.key + begin;
  size_t i = 0;
  for (; i + 2 * kLaneWords <= count; i += 2 * kLaneWords) {
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
  sum.a = static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(even.a, odd.a))) *
          digest_factor_a(block);
  sum.b = static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(even.b, odd.b))) *
          digest_factor_b(block);
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

constinit const Kernels kAvx512Kernels = {
    .name = "avx512",
    .diff = {kDiff<1>, kDiff<2>, kDiff<4>, kDiff<8>},
    .diff_refresh = {kDiffRefresh<1>, kDiffRefresh<2>, kDiffRefresh<4>, kDiffRefresh<8>},
    .digest = digest_words,
};

}  // namespace siltstone
