// AVX-512: a row of 16 symbols at a time. States that need a word take the next ones in lane order,
// which is what VPEXPANDD does.
#include <immintrin.h>

#include <cstring>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kRow = 16;

// The first `count` <= 16 symbols of a row; `word` moves on. False if the words run out.
bool decode_row(const RansInput& input, size_t begin, __mmask16 lanes, uint32_t* states,
                size_t* used, uint8_t* symbols) {
  const __m512i low = _mm512_set1_epi32(kRansTotal - 1);
  const __m512i x = _mm512_loadu_si512(states);
  const __m512i table = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, input.tables + begin));
  const __m512i index =
      _mm512_add_epi32(_mm512_slli_epi32(table, kRansLog2Total), _mm512_and_si512(x, low));
  const __m512i slot =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, index, input.slots, 4);
  _mm_mask_storeu_epi8(symbols + begin, lanes, _mm512_cvtepi32_epi8(_mm512_srli_epi32(slot, 21)));
  const __m512i frequency = _mm512_and_si512(_mm512_srli_epi32(slot, kRansLog2Total),
                                             _mm512_set1_epi32(2 * kRansTotal - 1));
  __m512i next =
      _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, kRansLog2Total)),
                       _mm512_and_si512(slot, low));
  const __mmask16 short_ones =
      _mm512_mask_cmplt_epu32_mask(lanes, next, _mm512_set1_epi32(1 << kRansLog2Low));
  const auto wanted = static_cast<size_t>(_mm_popcnt_u32(short_ones));
  if (wanted > input.words_left - *used) return false;
  const std::byte* word = input.words + 2 * *used;
  const size_t there = input.words_left - *used;
  const __m256i words =
      there >= kRow ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word))
                    : _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1U << there) - 1), word);
  const __m512i fill = _mm512_maskz_expand_epi32(short_ones, _mm512_cvtepu16_epi32(words));
  next = _mm512_mask_or_epi32(next, short_ones, _mm512_slli_epi32(next, 16), fill);
  _mm512_mask_storeu_epi32(states, lanes, next);
  *used += wanted;
  return true;
}

// x / y for y of 1 to 2^10. Exact: a quotient that is no integer is at least 2^-10 below the next
// one, and below 2^32 doubles are spaced 2^-21 or closer.
__m512i divide(__m512i x, __m512i y) {
  const auto half = [](__m256i a, __m256i b) {
    return _mm512_cvttpd_epu32(_mm512_div_pd(_mm512_cvtepu32_pd(a), _mm512_cvtepu32_pd(b)));
  };
  const __m256i low = half(_mm512_castsi512_si256(x), _mm512_castsi512_si256(y));
  const __m256i high = half(_mm512_extracti64x4_epi64(x, 1), _mm512_extracti64x4_epi64(y, 1));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

}  // namespace

size_t avx512_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols) {
  const size_t lanes = size_t{1} << input.log2_lanes;
  if (lanes < kRow) return scalar_decode_symbols(input, states, symbols);
  size_t used = 0;
  for (size_t begin = 0; begin < input.n; begin += kRow) {
    const size_t left = input.n - begin;
    const auto mask = static_cast<__mmask16>(left >= kRow ? 0xFFFF : (1U << left) - 1);
    if (!decode_row(input, begin, mask, states + begin % lanes, &used, symbols)) return kCutOff;
  }
  return used;
}

uint16_t* avx512_encode_symbols(const RansSymbols& input, uint32_t* states, uint16_t* end) {
  const size_t lanes = size_t{1} << input.log2_lanes;
  if (lanes < kRow) return scalar_encode_symbols(input, states, end);
  for (size_t begin = (input.n + kRow - 1) / kRow * kRow; begin > 0;) {
    begin -= kRow;
    const size_t left = input.n - begin;
    const auto row = static_cast<__mmask16>(left >= kRow ? 0xFFFF : (1U << left) - 1);
    const __m512i code = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(row, input.codes + begin));
    const __m512i range =
        _mm512_mask_i32gather_epi32(_mm512_set1_epi32(1), row, code, input.ranges, 4);
    const __m512i frequency = _mm512_and_si512(range, _mm512_set1_epi32(0xFFFF));
    uint32_t* const state = states + begin % lanes;
    __m512i x = _mm512_loadu_si512(state);
    const __mmask16 full =
        _mm512_mask_cmpge_epu32_mask(row, _mm512_srli_epi32(x, 32 - kRansLog2Total), frequency);
    const auto count = static_cast<size_t>(_mm_popcnt_u32(full));
    const __m512i low = _mm512_maskz_compress_epi32(full, x);
    end -= count;
    _mm256_mask_storeu_epi16(end, static_cast<__mmask16>((1U << count) - 1),
                             _mm512_cvtepi32_epi16(low));
    x = _mm512_mask_srli_epi32(x, full, x, 16);
    const __m512i quotient = divide(x, frequency);
    const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
    const __m512i next = _mm512_add_epi32(_mm512_slli_epi32(quotient, kRansLog2Total),
                                          _mm512_add_epi32(rest, _mm512_srli_epi32(range, 16)));
    _mm512_mask_storeu_epi32(state, row, next);
  }
  return end;
}

}  // namespace siltstone
