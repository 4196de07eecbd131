// AVX2: a row of 8 symbols at a time. There is no expansion: a table of permutations, one per mask
// of states that need a word, deals the next words out in lane order.
#include <immintrin.h>

#include <cstring>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kRow = 8;

struct Deals {
  alignas(32) uint32_t lane_word[256][8];
};
constexpr Deals make_deals() {
  Deals deals{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    uint32_t next = 0;
    for (unsigned lane = 0; lane < 8; ++lane)
      if ((mask >> lane & 1) != 0) deals.lane_word[mask][lane] = next++;
  }
  return deals;
}
constexpr Deals kDeals = make_deals();

}  // namespace

size_t avx2_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols) {
  const size_t lanes = size_t{1} << input.log2_lanes;
  // Rows that are not whole, and rows that might read past the last word, go the plain way.
  size_t begin = 0;
  size_t used = 0;
  const __m256i low = _mm256_set1_epi32(kRansTotal - 1);
  const __m256i frequencies = _mm256_set1_epi32(2 * kRansTotal - 1);
  for (; lanes >= kRow && begin + kRow <= input.n && used + kRow <= input.words_left;
       begin += kRow) {
    auto* state = reinterpret_cast<__m256i*>(states + begin % lanes);
    const __m256i x = _mm256_loadu_si256(state);
    const __m256i table = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(input.tables + begin)));
    const __m256i index =
        _mm256_add_epi32(_mm256_slli_epi32(table, kRansLog2Total), _mm256_and_si256(x, low));
    const __m256i slot =
        _mm256_i32gather_epi32(reinterpret_cast<const int*>(input.slots), index, 4);
    const __m256i symbol = _mm256_srli_epi32(slot, 21);
    const __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(symbol), _mm256_extracti128_si256(symbol, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(symbols + begin), _mm_packus_epi16(halves, halves));
    const __m256i frequency =
        _mm256_and_si256(_mm256_srli_epi32(slot, kRansLog2Total), frequencies);
    const __m256i next =
        _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kRansLog2Total)),
                         _mm256_and_si256(slot, low));
    const __m256i is_short =
        _mm256_cmpeq_epi32(_mm256_srli_epi32(next, kRansLog2Low), _mm256_setzero_si256());
    const auto mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(is_short)));
    const __m256i words = _mm256_cvtepu16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(input.words + 2 * used)));
    const __m256i dealt = _mm256_permutevar8x32_epi32(
        words, _mm256_load_si256(reinterpret_cast<const __m256i*>(kDeals.lane_word[mask])));
    const __m256i filled = _mm256_or_si256(_mm256_slli_epi32(next, 16), dealt);
    _mm256_storeu_si256(state, _mm256_blendv_epi8(next, filled, is_short));
    used += static_cast<size_t>(_mm_popcnt_u32(mask));
  }
  if (begin == input.n) return used;
  RansInput rest = input;
  rest.tables += begin;
  rest.n -= begin;
  rest.words += 2 * used;
  rest.words_left -= used;
  // Lanes restart at 0 with `begin`: turn the states so that they do.
  uint32_t turned[32];
  for (size_t lane = 0; lane < lanes; ++lane) turned[lane] = states[(begin + lane) % lanes];
  const size_t more = scalar_decode_symbols(rest, turned, symbols + begin);
  for (size_t lane = 0; lane < lanes; ++lane) states[(begin + lane) % lanes] = turned[lane];
  return more == kCutOff ? kCutOff : used + more;
}

}  // namespace siltstone
