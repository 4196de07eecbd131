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

}  // namespace siltstone
