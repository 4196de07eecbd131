#include "kernels/reads.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace siltstone::bench {
namespace {

uint64_t load64(const std::byte* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint64_t plain_one(const std::byte* a, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t k = 0; k < 8; ++k) sums[k] += load64(a + i + 8 * k);
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

uint64_t plain_two(const std::byte* a, const std::byte* b, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t k = 0; k < 8; ++k) sums[k] += load64(a + i + 8 * k) ^ load64(b + i + 8 * k);
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

uint64_t plain_wide(const std::byte* a, const std::byte* b, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t k = 0; k < 8; ++k) {
      sums[k] += load64(a + 2 * i + 8 * k) ^ load64(a + 2 * i + 64 + 8 * k) ^ load64(b + i + 8 * k);
    }
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

#if defined(__x86_64__)

#define SILT_AVX2 __attribute__((target("avx2")))
#define SILT_AVX512 __attribute__((target("avx512f")))

SILT_AVX2 __m256i load256(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

SILT_AVX2 uint64_t total256(const __m256i* sums, size_t n) {
  uint64_t total = 0;
  for (size_t k = 0; k < n; ++k) {
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums[k]);
    total += lanes[0] + lanes[1] + lanes[2] + lanes[3];
  }
  return total;
}

SILT_AVX2 uint64_t avx2_one(const std::byte* a, size_t bytes) {
  __m256i s[4] = {};
  for (size_t i = 0; i < bytes; i += 128) {
    s[0] = _mm256_add_epi64(s[0], load256(a + i));
    s[1] = _mm256_add_epi64(s[1], load256(a + i + 32));
    s[2] = _mm256_add_epi64(s[2], load256(a + i + 64));
    s[3] = _mm256_add_epi64(s[3], load256(a + i + 96));
  }
  return total256(s, 4);
}

SILT_AVX2 uint64_t avx2_two(const std::byte* a, const std::byte* b, size_t bytes) {
  __m256i s[4] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    s[0] = _mm256_add_epi64(s[0], load256(a + i));
    s[1] = _mm256_add_epi64(s[1], load256(a + i + 32));
    s[2] = _mm256_add_epi64(s[2], load256(b + i));
    s[3] = _mm256_add_epi64(s[3], load256(b + i + 32));
  }
  return total256(s, 4);
}

SILT_AVX2 uint64_t avx2_wide(const std::byte* a, const std::byte* b, size_t bytes) {
  __m256i s[6] = {};
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t k = 0; k < 4; ++k) s[k] = _mm256_add_epi64(s[k], load256(a + 2 * i + 32 * k));
    s[4] = _mm256_add_epi64(s[4], load256(b + i));
    s[5] = _mm256_add_epi64(s[5], load256(b + i + 32));
  }
  return total256(s, 6);
}

SILT_AVX512 uint64_t total512(const __m512i* sums, size_t n) {
  uint64_t total = 0;
  for (size_t k = 0; k < n; ++k) {
    alignas(64) uint64_t lanes[8];
    _mm512_store_si512(lanes, sums[k]);
    for (const uint64_t lane : lanes) total += lane;
  }
  return total;
}

SILT_AVX512 uint64_t avx512_one(const std::byte* a, size_t bytes) {
  __m512i s[4] = {};
  for (size_t i = 0; i < bytes; i += 256) {
    s[0] = _mm512_add_epi64(s[0], _mm512_loadu_si512(a + i));
    s[1] = _mm512_add_epi64(s[1], _mm512_loadu_si512(a + i + 64));
    s[2] = _mm512_add_epi64(s[2], _mm512_loadu_si512(a + i + 128));
    s[3] = _mm512_add_epi64(s[3], _mm512_loadu_si512(a + i + 192));
  }
  return total512(s, 4);
}

SILT_AVX512 uint64_t avx512_two(const std::byte* a, const std::byte* b, size_t bytes) {
  __m512i s[4] = {};
  for (size_t i = 0; i < bytes; i += 128) {
    s[0] = _mm512_add_epi64(s[0], _mm512_loadu_si512(a + i));
    s[1] = _mm512_add_epi64(s[1], _mm512_loadu_si512(a + i + 64));
    s[2] = _mm512_add_epi64(s[2], _mm512_loadu_si512(b + i));
    s[3] = _mm512_add_epi64(s[3], _mm512_loadu_si512(b + i + 64));
  }
  return total512(s, 4);
}

SILT_AVX512 uint64_t avx512_wide(const std::byte* a, const std::byte* b, size_t bytes) {
  __m512i s[6] = {};
  for (size_t i = 0; i < bytes; i += 128) {
    for (size_t k = 0; k < 4; ++k) {
      s[k] = _mm512_add_epi64(s[k], _mm512_loadu_si512(a + 2 * i + 64 * k));
    }
    s[4] = _mm512_add_epi64(s[4], _mm512_loadu_si512(b + i));
    s[5] = _mm512_add_epi64(s[5], _mm512_loadu_si512(b + i + 64));
  }
  return total512(s, 6);
}

#endif

constexpr ReadLoop kLoops[] = {
    {"read, plain", plain_one, plain_two, plain_wide},
#if defined(__x86_64__)
    {"read, avx2", avx2_one, avx2_two, avx2_wide},
    {"read, avx512", avx512_one, avx512_two, avx512_wide},
#endif
};

}  // namespace

std::span<const ReadLoop> read_loops() {
  size_t count = 1;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) count = 2;
  if (count == 2 && __builtin_cpu_supports("avx512f")) count = 3;
#endif
  return {kLoops, count};
}

}  // namespace siltstone::bench
