// AVX2. It has no compress instruction, so positions come out of a bit mask one by one; the first
// few of every 64 bytes are written without asking whether they exist, because a branch that is
// taken every third time costs more than they do.
#include <immintrin.h>

#include <cstring>

#include "delta/kernels/branch_free.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kStepBytes = 64;
constexpr size_t kFreeWords = 4;  // written per step whether they exist or not; below kDiffSlack

const __m256i* vector_at(const std::byte* p) {
  return reinterpret_cast<const __m256i*>(p);
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

template <size_t kWordBytes>
struct Output {
  uint16_t* positions;
  std::byte* words;
  size_t count = 0;

  // Writes the lowest set bit of `mask` at place `slot` of the list; if there is none, something
  // harmless.
  void write(size_t slot, size_t i, uint64_t mask, const std::byte* next) const {
    constexpr size_t kStep = kStepBytes / kWordBytes;
    const size_t at = i + (_tzcnt_u64(mask) & (kStep - 1));
    positions[slot] = static_cast<uint16_t>(at);
    std::memcpy(words + slot * kWordBytes, next + at * kWordBytes, kWordBytes);
  }

  void add(size_t i, uint64_t mask, const std::byte* next) {
    const auto found = static_cast<size_t>(_mm_popcnt_u64(mask));
    for (size_t k = 0; k < kFreeWords; ++k) {
      write(count + k, i, mask, next);
      mask = _blsr_u64(mask);
    }
    for (size_t k = kFreeWords; k < found; ++k) {
      write(count + k, i, mask, next);
      mask = _blsr_u64(mask);
    }
    count += found;
  }
};

template <size_t kWordBytes, bool kRefresh, class Base>
size_t diff_words(const std::byte* next, Base* base, size_t n, uint16_t* positions,
                  std::byte* words) {
  constexpr size_t kStep = kStepBytes / kWordBytes;
  alignas(64) std::byte nowhere[kStepBytes];
  Output<kWordBytes> out{positions, words};
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const std::byte* from = next + i * kWordBytes;
    Base* to = base + i * kWordBytes;
    const __m256i x0 = _mm256_loadu_si256(vector_at(from));
    const __m256i x1 = _mm256_loadu_si256(vector_at(from + 32));
    const __m256i y0 = _mm256_loadu_si256(vector_at(to));
    const __m256i y1 = _mm256_loadu_si256(vector_at(to + 32));
    const uint64_t mask = differ<kWordBytes>(x0, x1, y0, y1);
    out.add(i, mask, next);
    if constexpr (kRefresh) {
      // A store that always happens, elsewhere if nothing differs: no branch, no dirty clean line.
      std::byte* target = choose_address(mask != 0, to, nowhere);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), x0);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + 32), x1);
    }
  }
  for (; i < n; ++i) {
    const std::byte* from = next + i * kWordBytes;
    if (std::memcmp(from, base + i * kWordBytes, kWordBytes) == 0) continue;
    positions[out.count] = static_cast<uint16_t>(i);
    std::memcpy(words + out.count * kWordBytes, from, kWordBytes);
    if constexpr (kRefresh) std::memcpy(base + i * kWordBytes, from, kWordBytes);
    ++out.count;
  }
  return out.count;
}

template <size_t kWordBytes>
constexpr Kernels::Diff kDiff = diff_words<kWordBytes, false, const std::byte>;
template <size_t kWordBytes>
constexpr Kernels::DiffRefresh kDiffRefresh = diff_words<kWordBytes, true, std::byte>;

__m256i key_at(const uint64_t* key) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(key));
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
  sum->a = _mm256_add_epi64(sum->a, term(word, key_at(key)));
  sum->b = _mm256_add_epi64(sum->b, term(word, key_at(key + kDigestLaneShift)));
}

// Words [begin, begin + count) of one block, times the block's factors.
Sum128 digest_block(const std::byte* bytes, size_t begin, size_t count, uint64_t block) {
  constexpr size_t kLaneWords = 4;
  Lane2 even;
  Lane2 odd;
  const uint64_t* key = kDigestKeys.key + begin;
  size_t i = 0;
  for (; i + 2 * kLaneWords <= count; i += 2 * kLaneWords) {
    add_terms(&even, _mm256_loadu_si256(vector_at(bytes + i * 8)), key + i);
    add_terms(&odd, _mm256_loadu_si256(vector_at(bytes + i * 8 + 32)), key + i + kLaneWords);
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
    .digest = digest_words,
};

}  // namespace siltstone
