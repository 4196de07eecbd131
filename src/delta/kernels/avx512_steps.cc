// AVX-512 with VBMI2, words of 2 bytes: 32 words at a time. What belongs to dense words alone is
// packed with compressions and spread with expansions, so no position is ever looked up. Words of
// other sizes, and windows with few dense words, go the plain way.
#include <immintrin.h>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kRow = 32;
constexpr unsigned kWordBits = 16;
constexpr unsigned kWidestSymbol = kFirstWideSymbol + kWordBits - 3;  // 16 raw bits

__m512i spread(unsigned x) {
  return _mm512_set1_epi16(static_cast<short>(x));
}

// Words to ranks and back, as WordRanks does.
struct Ranks {
  explicit Ranks(WordOrder order)
      : top(spread(order == WordOrder::kUnsigned ? 0 : 0x8000)),
        by_sign(spread(order == WordOrder::kSignMagnitude ? 0xFFFF : 0)) {}
  __m512i rank(__m512i x) const { return _mm512_xor_si512(x, mask(_mm512_srai_epi16(x, 15))); }
  __m512i word(__m512i x) const {
    const __m512i positive = _mm512_srai_epi16(x, 15);
    return _mm512_xor_si512(x, mask(_mm512_xor_si512(positive, _mm512_set1_epi16(-1))));
  }
  __m512i mask(__m512i sign) const { return _mm512_or_si512(_mm512_and_si512(sign, by_sign), top); }
  __m512i top;
  __m512i by_sign;
};

struct Tables {
  explicit Tables(const StepCoding& coding)
      : magnitude(spread(static_cast<unsigned>(coding.magnitude_mask))),
        shift(_mm_cvtsi32_si128(static_cast<int>(coding.shift))),
        highest(spread(coding.threshold - 1)),
        last(spread(coding.tables - 1)) {}
  __m512i of(__m512i words) const {
    const __m512i exponent = _mm512_srl_epi16(_mm512_and_si512(words, magnitude), shift);
    return _mm512_min_epu16(_mm512_sub_epi16(highest, exponent), last);
  }
  __m512i magnitude;
  __m128i shift;
  __m512i highest;
  __m512i last;
};

// Momentum of 32 words.
struct Past {
  Past(const Ranks& ranks, __m512i earlier, __m512i words) {
    const __m512i step = _mm512_sub_epi16(ranks.rank(words), ranks.rank(earlier));
    const __m512i size = _mm512_abs_epi16(step);
    down = _mm512_movepi16_mask(step);
    context = _mm512_min_epu16(size, spread(kMomentumContexts - 1));
    expected = _mm512_maskz_sub_epi16(_mm512_cmpge_epu16_mask(size, spread(2)), size,
                                      _mm512_srli_epi16(size, 3));
  }
  __m512i table(__m512i by_exponent) const {
    return _mm512_add_epi16(_mm512_mullo_epi16(by_exponent, spread(kMomentumContexts)), context);
  }
  __m512i rest_of(__m512i step) const { return _mm512_sub_epi16(turned(step), expected); }
  __m512i step_of(__m512i rest) const { return turned(_mm512_add_epi16(rest, expected)); }
  __m512i turned(__m512i x) const {
    return _mm512_mask_sub_epi16(x, down, _mm512_setzero_si512(), x);
  }
  __mmask32 down;
  __m512i context;
  __m512i expected;
};

// The rows of a window: 32 words each, which of them are there, and which of those are dense.
template <class Visit>
void for_each_row(size_t n, const ClassWindow& window, Visit visit) {
  for (size_t begin = 0; begin < n; begin += kRow) {
    const auto dense = static_cast<__mmask32>(window.members[0][begin / kGroupElements] >>
                                              (begin % kGroupElements));
    if (dense == 0) continue;
    const size_t left = n - begin;
    visit(begin, static_cast<__mmask32>(left >= kRow ? ~0U : (1U << left) - 1), dense);
  }
}

template <bool kEarlier>
void find_tables(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                 size_t n, const ClassWindow& window, uint8_t* tables) {
  const Tables of(coding);
  const Ranks ranks(coding.order);
  for_each_row(n, window, [&](size_t begin, __mmask32 there, __mmask32 dense) {
    const __m512i x = _mm512_maskz_loadu_epi16(there, words + begin * 2);
    __m512i table = of.of(x);
    if constexpr (kEarlier) {
      table = Past(ranks, _mm512_maskz_loadu_epi16(there, earlier + begin * 2), x).table(table);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tables),
                        _mm256_maskz_compress_epi8(dense, _mm512_cvtepi16_epi8(table)));
    tables += _mm_popcnt_u32(dense);
  });
}

// 7 + floor(log2(size - 1)) of sixteen sizes above 4.
__m256i wide_symbols(__m256i sizes) {
  const __m512i beyond = _mm512_sub_epi32(_mm512_cvtepu16_epi32(sizes), _mm512_set1_epi32(1));
  const __m512i symbol =
      _mm512_sub_epi32(_mm512_set1_epi32(kFirstWideSymbol - 2 + 31), _mm512_lzcnt_epi32(beyond));
  return _mm512_cvtepi32_epi16(symbol);
}

template <bool kEarlier>
size_t take_steps(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                  const std::byte* next, size_t n, const ClassWindow& window, uint16_t* codes,
                  std::byte* wide_steps) {
  const Tables of(coding);
  const Ranks ranks(coding.order);
  size_t wides = 0;
  for_each_row(n, window, [&](size_t begin, __mmask32 there, __mmask32 dense) {
    const __m512i from = _mm512_maskz_loadu_epi16(there, words + begin * 2);
    const __m512i to = _mm512_maskz_loadu_epi16(there, next + begin * 2);
    __m512i step = _mm512_sub_epi16(ranks.rank(to), ranks.rank(from));
    __m512i table = of.of(from);
    if constexpr (kEarlier) {
      const Past past(ranks, _mm512_maskz_loadu_epi16(there, earlier + begin * 2), from);
      step = past.rest_of(step);
      table = past.table(table);
    }
    const __m512i size = _mm512_abs_epi16(step);
    const __mmask32 up = _mm512_cmpgt_epi16_mask(step, _mm512_setzero_si512());
    __m512i symbol = _mm512_add_epi16(size, size);
    symbol = _mm512_mask_sub_epi16(symbol, up, symbol, spread(1));
    const __mmask32 wide = _mm512_mask_cmpgt_epu16_mask(dense, size, spread(kExactSteps));
    if (wide != 0) {
      const __m256i low = wide_symbols(_mm512_castsi512_si256(size));
      const __m256i high = wide_symbols(_mm512_extracti64x4_epi64(size, 1));
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      symbol = _mm512_mask_mov_epi16(symbol, wide, both);
      _mm512_storeu_si512(wide_steps + wides * 2, _mm512_maskz_compress_epi16(wide, step));
      wides += static_cast<size_t>(_mm_popcnt_u32(wide));
    }
    const __m512i code = _mm512_or_si512(_mm512_slli_epi16(table, 8), symbol);
    _mm512_storeu_si512(codes, _mm512_maskz_compress_epi16(dense, code));
    codes += _mm_popcnt_u32(dense);
  });
  return wides;
}

// Sixteen steps of symbols that raw bits follow. `raw` moves on; false if they are too few.
bool wide_row(__m256i symbols, __mmask16 wide, RawBits* raw, __m256i* steps) {
  const __m512i symbol = _mm512_cvtepu16_epi32(symbols);
  const __mmask16 escape =
      _mm512_mask_cmpeq_epi32_mask(wide, symbol, _mm512_set1_epi32(kEscapeSymbol));
  if (_mm512_mask_cmpgt_epi32_mask(static_cast<__mmask16>(wide & ~escape), symbol,
                                   _mm512_set1_epi32(kWidestSymbol)) != 0) {
    return false;
  }
  __m512i width = _mm512_maskz_sub_epi32(wide, symbol, _mm512_set1_epi32(kFirstWideSymbol - 3));
  width = _mm512_mask_mov_epi32(width, escape, _mm512_set1_epi32(kWordBits));
  // Sums of the widths up to and with each lane.
  const __m512i zero = _mm512_setzero_si512();
  __m512i ends = width;
  ends = _mm512_add_epi32(ends, _mm512_alignr_epi32(ends, zero, 15));
  ends = _mm512_add_epi32(ends, _mm512_alignr_epi32(ends, zero, 14));
  ends = _mm512_add_epi32(ends, _mm512_alignr_epi32(ends, zero, 12));
  ends = _mm512_add_epi32(ends, _mm512_alignr_epi32(ends, zero, 8));
  const auto total =
      static_cast<unsigned>(_mm_extract_epi32(_mm512_extracti32x4_epi32(ends, 3), 3));
  if (total > raw->end - raw->at) return false;
  const __m512i at = _mm512_add_epi32(_mm512_sub_epi32(ends, width),
                                      _mm512_set1_epi32(static_cast<int>(raw->at % 8)));
  const __m512i gathered = _mm512_mask_i32gather_epi32(zero, wide, _mm512_srli_epi32(at, 3),
                                                       raw->bytes + raw->at / 8, 1);
  const __m512i bits = _mm512_srlv_epi32(gathered, _mm512_and_si512(at, _mm512_set1_epi32(7)));
  raw->at += total;
  const __m512i one = _mm512_set1_epi32(1);
  const __m512i q = _mm512_sub_epi32(width, one);
  const __m512i unit = _mm512_sllv_epi32(one, q);
  const __m512i size = _mm512_add_epi32(
      _mm512_add_epi32(_mm512_and_si512(bits, _mm512_sub_epi32(unit, one)), unit), one);
  const __mmask16 down = _mm512_test_epi32_mask(bits, unit);
  __m512i step = _mm512_mask_sub_epi32(size, down, zero, size);
  step = _mm512_mask_mov_epi32(step, escape, bits);
  *steps = _mm512_cvtepi32_epi16(step);
  return true;
}

template <bool kEarlier>
size_t make_steps(const StepCoding& coding, std::byte* words, const std::byte* earlier, size_t n,
                  const ClassWindow& window, const uint8_t* symbols, RawBits* raw) {
  const Ranks ranks(coding.order);
  alignas(64) constexpr int16_t kSmallSteps[kRow] = {0, 1, -1, 2, -2, 3, -3, 4, -4};
  const __m512i small_steps = _mm512_load_si512(kSmallSteps);
  size_t changed = 0;
  bool enough = true;
  for_each_row(n, window, [&](size_t begin, __mmask32 there, __mmask32 dense) {
    const auto count = static_cast<unsigned>(_mm_popcnt_u32(dense));
    const __m256i packed =
        _mm256_maskz_loadu_epi8(count == kRow ? ~0U : (1U << count) - 1, symbols);
    symbols += count;
    const __m512i symbol = _mm512_cvtepu8_epi16(_mm256_maskz_expand_epi8(dense, packed));
    const __mmask32 wide = _mm512_cmpge_epu16_mask(symbol, spread(kFirstWideSymbol));
    __m512i step = _mm512_maskz_permutexvar_epi16(~wide, symbol, small_steps);
    if (wide != 0 && enough) {
      __m256i low;
      __m256i high;
      enough = wide_row(_mm512_castsi512_si256(symbol), static_cast<__mmask16>(wide), raw, &low) &&
               wide_row(_mm512_extracti64x4_epi64(symbol, 1), static_cast<__mmask16>(wide >> 16),
                        raw, &high);
      if (!enough) return;
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      step = _mm512_mask_mov_epi16(step, wide, both);
    }
    const __m512i old = _mm512_maskz_loadu_epi16(there, words + begin * 2);
    __mmask32 changes = _mm512_test_epi16_mask(symbol, symbol);
    if constexpr (kEarlier) {
      const Past past(ranks, _mm512_maskz_loadu_epi16(there, earlier + begin * 2), old);
      step = _mm512_maskz_mov_epi16(dense, past.step_of(step));
      changes = _mm512_test_epi16_mask(step, step);
    }
    changed += static_cast<size_t>(_mm_popcnt_u32(changes));
    const __m512i moved = ranks.word(_mm512_add_epi16(ranks.rank(old), step));
    _mm512_mask_storeu_epi16(words + begin * 2, there, moved);
  });
  return enough ? changed : kCutOff;
}

// Less than two dense words in a row of 32: then it takes longer to look through all rows than to
// look the positions up. Measured on Emerald Rapids, where the two are equal at 1.5 to 2.5.
bool has_few(size_t n, const ClassWindow& window) {
  const size_t dense = window.before[0][(n + kGroupElements - 1) / kGroupElements];
  return dense * (kRow / 2) < n;
}

void find_tables_of(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                    size_t n, const ClassWindow& window, uint8_t* tables) {
  const auto find = has_few(n, window)   ? kScalarFindTables[1]
                    : earlier == nullptr ? find_tables<false>
                                         : find_tables<true>;
  find(coding, words, earlier, n, window, tables);
}

size_t take_steps_of(const StepCoding& coding, const std::byte* words, const std::byte* earlier,
                     const std::byte* next, size_t n, const ClassWindow& window, uint16_t* codes,
                     std::byte* wide_steps) {
  const auto take = has_few(n, window)   ? kScalarTakeSteps[1]
                    : earlier == nullptr ? take_steps<false>
                                         : take_steps<true>;
  return take(coding, words, earlier, next, n, window, codes, wide_steps);
}

size_t make_steps_of(const StepCoding& coding, std::byte* words, const std::byte* earlier, size_t n,
                     const ClassWindow& window, const uint8_t* symbols, RawBits* raw) {
  const auto make = has_few(n, window)   ? kScalarMakeSteps[1]
                    : earlier == nullptr ? make_steps<false>
                                         : make_steps<true>;
  return make(coding, words, earlier, n, window, symbols, raw);
}

}  // namespace

const Kernels::FindTables kAvx512FindTables[4] = {kScalarFindTables[0], find_tables_of,
                                                  kScalarFindTables[2], kScalarFindTables[3]};
const Kernels::TakeSteps kAvx512TakeSteps[4] = {kScalarTakeSteps[0], take_steps_of,
                                                kScalarTakeSteps[2], kScalarTakeSteps[3]};
const Kernels::MakeSteps kAvx512MakeSteps[4] = {kScalarMakeSteps[0], make_steps_of,
                                                kScalarMakeSteps[2], kScalarMakeSteps[3]};

}  // namespace siltstone
