// AVX-512: a row of 16 symbols at a time. States that need a word take the next ones in lane order,
// which is what VPEXPANDD does. Whole rows keep their states in registers.
#include <immintrin.h>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kRow = 16;

__mmask16 first_lanes(size_t count) {
  return static_cast<__mmask16>(count >= kRow ? 0xFFFF : (1U << count) - 1);
}

// The symbols of a row, and the states before they take words.
__m512i look_up(const RansInput& input, size_t begin, __mmask16 lanes, __m512i x,
                __m128i* symbols) {
  const __m512i low = _mm512_set1_epi32(kRansTotal - 1);
  const __m512i table = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, input.tables + begin));
  const __m512i index =
      _mm512_add_epi32(_mm512_slli_epi32(table, kRansLog2Total), _mm512_and_si512(x, low));
  const __m512i slot =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, index, input.slots, 4);
  *symbols = _mm512_cvtepi32_epi8(_mm512_srli_epi32(slot, 21));
  const __m512i frequency = _mm512_and_si512(_mm512_srli_epi32(slot, kRansLog2Total),
                                             _mm512_set1_epi32(2 * kRansTotal - 1));
  return _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, kRansLog2Total)),
                          _mm512_and_si512(slot, low));
}

__mmask16 which_are_short(__mmask16 lanes, __m512i x) {
  return _mm512_mask_cmplt_epu32_mask(lanes, x, _mm512_set1_epi32(1 << kRansLog2Low));
}

__m512i take_words(__mmask16 short_ones, __m512i x, __m256i words) {
  const __m512i fill = _mm512_maskz_expand_epi32(short_ones, _mm512_cvtepu16_epi32(words));
  return _mm512_mask_or_epi32(x, short_ones, _mm512_slli_epi32(x, 16), fill);
}

// Rows of 16 * kRows symbols as long as whole ones have their words for certain. Returns how many
// symbols that were.
template <size_t kRows>
size_t decode_rows(const RansInput& input, uint32_t* states, size_t* used, uint8_t* symbols) {
  __m512i x[kRows];
  for (size_t r = 0; r < kRows; ++r) x[r] = _mm512_loadu_si512(states + r * kRow);
  size_t begin = 0;
  size_t taken = 0;
  for (; begin + kRows * kRow <= input.n && taken + kRows * kRow <= input.words_left;
       begin += kRows * kRow) {
    __m512i next[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      __m128i row_symbols;
      next[r] = look_up(input, begin + r * kRow, 0xFFFF, x[r], &row_symbols);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols + begin + r * kRow), row_symbols);
    }
    for (size_t r = 0; r < kRows; ++r) {
      const __mmask16 short_ones = which_are_short(0xFFFF, next[r]);
      const auto* words = reinterpret_cast<const __m256i*>(input.words + 2 * taken);
      x[r] = take_words(short_ones, next[r], _mm256_loadu_si256(words));
      taken += static_cast<size_t>(_mm_popcnt_u32(short_ones));
    }
  }
  for (size_t r = 0; r < kRows; ++r) _mm512_storeu_si512(states + r * kRow, x[r]);
  *used = taken;
  return begin;
}

// The first symbols of a row of `lanes`; false if the words run out.
bool decode_row(const RansInput& input, size_t begin, __mmask16 lanes, uint32_t* states,
                size_t* used, uint8_t* symbols) {
  __m128i row_symbols;
  const __m512i next = look_up(input, begin, lanes, _mm512_loadu_si512(states), &row_symbols);
  _mm_mask_storeu_epi8(symbols + begin, lanes, row_symbols);
  const __mmask16 short_ones = which_are_short(lanes, next);
  const auto wanted = static_cast<size_t>(_mm_popcnt_u32(short_ones));
  const size_t there = input.words_left - *used;
  if (wanted > there) return false;
  const __m256i words = _mm256_maskz_loadu_epi16(first_lanes(there), input.words + 2 * *used);
  _mm512_mask_storeu_epi32(states, lanes, take_words(short_ones, next, words));
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

// The first symbols of a row. Writes 16 words in front of *end, the last of which count.
__m512i encode_row(const RansSymbols& input, size_t begin, __mmask16 lanes, __m512i x,
                   uint16_t** end) {
  const __m512i code = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, input.codes + begin));
  const __m512i range =
      _mm512_mask_i32gather_epi32(_mm512_set1_epi32(1), lanes, code, input.ranges, 4);
  const __m512i frequency = _mm512_and_si512(range, _mm512_set1_epi32(0xFFFF));
  const __mmask16 full =
      _mm512_mask_cmpge_epu32_mask(lanes, _mm512_srli_epi32(x, 32 - kRansLog2Total), frequency);
  const auto count = static_cast<size_t>(_mm_popcnt_u32(full));
  const __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x));
  const __m256i iota = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m256i turned = _mm256_permutexvar_epi16(
      _mm256_add_epi16(iota, _mm256_set1_epi16(static_cast<short>(count))), words);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(*end - kRow), turned);
  *end -= count;
  x = _mm512_mask_srli_epi32(x, full, x, 16);
  const __m512i quotient = divide(x, frequency);
  const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
  return _mm512_add_epi32(_mm512_slli_epi32(quotient, kRansLog2Total),
                          _mm512_add_epi32(rest, _mm512_srli_epi32(range, 16)));
}

// The first `n` symbols, whole rows of all lanes.
template <size_t kRows>
uint16_t* encode_rows(const RansSymbols& input, size_t n, uint32_t* states, uint16_t* end) {
  __m512i x[kRows];
  for (size_t r = 0; r < kRows; ++r) x[r] = _mm512_loadu_si512(states + r * kRow);
  for (size_t begin = n; begin > 0;) {
    for (size_t r = kRows; r-- > 0;) {
      begin -= kRow;
      x[r] = encode_row(input, begin, 0xFFFF, x[r], &end);
    }
  }
  for (size_t r = 0; r < kRows; ++r) _mm512_storeu_si512(states + r * kRow, x[r]);
  return end;
}

}  // namespace

size_t avx512_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols) {
  const size_t lanes = size_t{1} << input.log2_lanes;
  if (lanes < kRow) return scalar_decode_symbols(input, states, symbols);
  size_t used = 0;
  size_t begin = lanes == kRow ? decode_rows<1>(input, states, &used, symbols)
                               : decode_rows<2>(input, states, &used, symbols);
  for (; begin < input.n; begin += kRow) {
    uint32_t* const row = states + begin % lanes;
    if (!decode_row(input, begin, first_lanes(input.n - begin), row, &used, symbols)) {
      return kCutOff;
    }
  }
  return used;
}

uint16_t* avx512_encode_symbols(const RansSymbols& input, uint32_t* states, uint16_t* end) {
  const size_t lanes = size_t{1} << input.log2_lanes;
  if (lanes < kRow) return scalar_encode_symbols(input, states, end);
  const size_t whole = input.n - input.n % lanes;
  for (size_t begin = (input.n + kRow - 1) / kRow * kRow; begin > whole;) {
    begin -= kRow;
    const __mmask16 row = first_lanes(input.n - begin);
    uint32_t* const state = states + begin % lanes;
    const __m512i next = encode_row(input, begin, row, _mm512_loadu_si512(state), &end);
    _mm512_mask_storeu_epi32(state, row, next);
  }
  return lanes == kRow ? encode_rows<1>(input, whole, states, end)
                       : encode_rows<2>(input, whole, states, end);
}

}  // namespace siltstone
