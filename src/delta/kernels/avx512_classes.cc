// AVX-512 with VBMI2: a compare gives a mask, so a group costs one compare for every register and
// cut.
#include <immintrin.h>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

alignas(64) constexpr uint16_t kIota[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

constexpr size_t kAheadBytes = 4096;

// Per word size: a group's words are kWordBytes registers of 64 / kWordBytes words.
template <size_t kWordBytes>
struct Lanes;

template <>
struct Lanes<1> {
  static __m512i spread(uint64_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static __m512i load(uint64_t m, const void* p) { return _mm512_maskz_loadu_epi8(m, p); }
  static uint64_t at_least(__m512i x, __m512i y) { return _mm512_cmpge_epu8_mask(x, y); }
};
template <>
struct Lanes<2> {
  static __m512i spread(uint64_t x) { return _mm512_set1_epi16(static_cast<short>(x)); }
  static __m512i load(uint64_t m, const void* p) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(m), p);
  }
  static uint64_t at_least(__m512i x, __m512i y) { return _mm512_cmpge_epu16_mask(x, y); }
};
template <>
struct Lanes<4> {
  static __m512i spread(uint64_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static __m512i load(uint64_t m, const void* p) {
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(m), p);
  }
  static uint64_t at_least(__m512i x, __m512i y) { return _mm512_cmpge_epu32_mask(x, y); }
};
template <>
struct Lanes<8> {
  static __m512i spread(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
  static __m512i load(uint64_t m, const void* p) {
    return _mm512_maskz_loadu_epi64(static_cast<__mmask8>(m), p);
  }
  static uint64_t at_least(__m512i x, __m512i y) { return _mm512_cmpge_epu64_mask(x, y); }
};

template <size_t kWordBytes, unsigned kCuts>
void classify_by(const std::byte* words, size_t n, const ClassCuts& cuts, ClassWindow* window) {
  using L = Lanes<kWordBytes>;
  constexpr size_t kLanes = 64 / kWordBytes;
  const __m512i magnitude = L::spread(cuts.magnitude_mask);
  __m512i from[kCuts];
  for (unsigned c = 0; c < kCuts; ++c) from[c] = L::spread(cuts.from[c]);
  uint32_t before[kCuts + 1] = {};
  const size_t groups = (n + kGroupElements - 1) / kGroupElements;
  for (size_t group = 0; group < groups; ++group) {
    const size_t left = n - group * kGroupElements;
    const uint64_t valid = left >= kGroupElements ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    const std::byte* p = words + group * kGroupElements * kWordBytes;
    __m512i x[kWordBytes];
    for (size_t r = 0; r < kWordBytes; ++r) {
      const __m512i words_of = left >= kGroupElements ? _mm512_loadu_si512(p + r * 64)
                                                      : L::load(valid >> (r * kLanes), p + r * 64);
      x[r] = _mm512_and_si512(words_of, magnitude);
      _mm_prefetch(reinterpret_cast<const char*>(p + kAheadBytes + r * 64), _MM_HINT_T0);
    }
    uint64_t above = valid;
#pragma GCC unroll 9
    for (unsigned c = 0; c <= kCuts; ++c) {
      uint64_t at_least = 0;
      if (c < kCuts)
        for (size_t r = 0; r < kWordBytes; ++r)
          at_least |= L::at_least(x[r], from[c < kCuts ? c : 0]) << (r * kLanes);
      at_least &= valid;
      const uint64_t members = above & ~at_least;
      above = at_least;
      window->members[c][group] = members;
      window->before[c][group] = static_cast<uint16_t>(before[c]);
      if (c == 0) {
        const __m512i start = _mm512_set1_epi16(static_cast<short>(group * kGroupElements));
        const auto low = static_cast<__mmask32>(members);
        const auto high = static_cast<__mmask32>(members >> 32);
        uint16_t* out = window->lowest + before[0];
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(
                                     low, _mm512_add_epi16(start, _mm512_load_si512(kIota))));
        _mm512_storeu_si512(out + _mm_popcnt_u32(low),
                            _mm512_maskz_compress_epi16(
                                high, _mm512_add_epi16(start, _mm512_load_si512(kIota + 32))));
      }
      before[c] += static_cast<uint32_t>(_mm_popcnt_u64(members));
    }
  }
  for (unsigned c = 0; c <= kCuts; ++c)
    window->before[c][groups] = static_cast<uint16_t>(before[c]);
}

template <size_t kWordBytes>
constexpr Kernels::Classify kByCuts[kMaxCuts + 1] = {
    classify_by<kWordBytes, 1>, classify_by<kWordBytes, 1>, classify_by<kWordBytes, 2>,
    classify_by<kWordBytes, 3>, classify_by<kWordBytes, 4>, classify_by<kWordBytes, 5>,
    classify_by<kWordBytes, 6>, classify_by<kWordBytes, 7>, classify_by<kWordBytes, 8>};

// The number of cuts is constant for the compiler, so that counts stay in registers.
template <size_t kWordBytes>
void classify_words(const std::byte* words, size_t n, const ClassCuts& cuts, ClassWindow* window) {
  kByCuts<kWordBytes>[cuts.cuts](words, n, cuts, window);
}

}  // namespace

// A member is in the first group that ends behind it. All ends are compared at once, without a
// branch on the group, which would be guessed wrong for most members.
void avx512_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                   size_t count, uint64_t first_rank, uint16_t* positions) {
  static_assert(kWindowGroups == 4 * 32);
  __m512i ends[4];
  for (size_t r = 0; r < 4; ++r) ends[r] = _mm512_loadu_si512(before + 1 + r * 32);
  for (size_t i = 0; i < count; ++i) {
    const auto rank = static_cast<uint16_t>(ranks[i] - first_rank);
    const __m512i wanted = _mm512_set1_epi16(static_cast<short>(rank));
    const auto ends_behind = [&](size_t r) {
      return uint64_t{_mm512_cmpgt_epu16_mask(ends[r], wanted)};
    };
    const uint64_t low = ends_behind(0) | ends_behind(1) << 32;
    const uint64_t high = ends_behind(2) | ends_behind(3) << 32;
    const uint64_t group = low != 0 ? _tzcnt_u64(low) : 64 + _tzcnt_u64(high);
    const uint64_t bit = _pdep_u64(uint64_t{1} << (rank - before[group]), members[group]);
    positions[i] = static_cast<uint16_t>(group * kGroupElements + _tzcnt_u64(bit));
  }
}

const Kernels::Classify kAvx512Classify[4] = {classify_words<1>, classify_words<2>,
                                              classify_words<4>, classify_words<8>};

}  // namespace siltstone
