// AVX2 has no unsigned compares: x >= y where max(x, y) is x.
#include <immintrin.h>

#include <cstring>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

constexpr size_t kAheadBytes = 2048;  // may lead behind the words: a prefetch never faults

__m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Per word size: a group's words are 2 * kWordBytes registers.
template <size_t kWordBytes>
struct Lanes;

template <>
struct Lanes<1> {
  static __m256i spread(uint64_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static uint64_t at_least(const __m256i* x, __m256i y) {
    const auto part = [y](__m256i v) {
      return static_cast<uint32_t>(
          _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(v, y), v)));
    };
    return part(x[0]) | uint64_t{part(x[1])} << 32;
  }
};
template <>
struct Lanes<2> {
  static __m256i spread(uint64_t x) { return _mm256_set1_epi16(static_cast<short>(x)); }
  static uint64_t at_least(const __m256i* x, __m256i y) {
    const auto compare = [y](__m256i v) { return _mm256_cmpeq_epi16(_mm256_max_epu16(v, y), v); };
    const auto part = [compare](__m256i v, __m256i w) {
      const __m256i packed = _mm256_packs_epi16(compare(v), compare(w));
      // packs works within 128-bit halves: put the quarters back in order.
      return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(packed, 0xd8)));
    };
    return part(x[0], x[1]) | uint64_t{part(x[2], x[3])} << 32;
  }
};
template <>
struct Lanes<4> {
  static __m256i spread(uint64_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static uint64_t at_least(const __m256i* x, __m256i y) {
    uint64_t mask = 0;
    for (unsigned r = 0; r < 8; ++r) {
      const __m256i same = _mm256_cmpeq_epi32(_mm256_max_epu32(x[r], y), x[r]);
      mask |= static_cast<uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(same))) << (8 * r);
    }
    return mask;
  }
};
template <>
struct Lanes<8> {
  static __m256i spread(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
  static uint64_t at_least(const __m256i* x, __m256i y) {
    const __m256i top = spread(uint64_t{1} << 63);
    uint64_t below = 0;
    for (unsigned r = 0; r < 16; ++r) {
      const __m256i less =
          _mm256_cmpgt_epi64(_mm256_xor_si256(y, top), _mm256_xor_si256(x[r], top));
      below |= static_cast<uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(less))) << (4 * r);
    }
    return ~below;
  }
};

// Words of 2 bytes whose cuts have no bits below kShift, as exponents of bf16 have: their upper
// bits fit bytes, so that a compare takes half as many instructions.
struct PackedLanes {
  static constexpr unsigned kShift = 7;
  static constexpr size_t kWordBytes = 2;

  explicit PackedLanes(const ClassCuts& cuts)
      : magnitude(_mm256_set1_epi16(static_cast<short>(cuts.magnitude_mask))) {
    for (unsigned c = 0; c < cuts.cuts; ++c) {
      const uint64_t byte = cuts.from[c] >> kShift;
      from[c] = _mm256_set1_epi8(static_cast<char>(byte));
      reached[c] = byte <= 0xFF ? ~uint64_t{0} : 0;  // some cuts lie above all words
    }
  }
  static bool can(const ClassCuts& cuts) {
    uint64_t bits = cuts.magnitude_mask & 0x8000;  // a magnitude of 15 bits
    for (unsigned c = 0; c < cuts.cuts; ++c) bits |= cuts.from[c] & ((1U << kShift) - 1);
    return bits == 0;
  }
  struct Group {
    __m256i x[2];
  };
  Group read(const std::byte* p) const {
    const auto upper = [&](size_t r) {
      return _mm256_srli_epi16(_mm256_and_si256(load(p + r * 32), magnitude), kShift);
    };
    // packus works within 128-bit halves: put the quarters back in order.
    return {{_mm256_permute4x64_epi64(_mm256_packus_epi16(upper(0), upper(1)), 0xd8),
             _mm256_permute4x64_epi64(_mm256_packus_epi16(upper(2), upper(3)), 0xd8)}};
  }
  uint64_t at_least(const Group& group, unsigned c) const {
    return Lanes<1>::at_least(group.x, from[c]) & reached[c];
  }

  __m256i magnitude;
  __m256i from[kMaxCuts];
  uint64_t reached[kMaxCuts];
};

template <size_t kWordBytesOf>
struct WholeLanes {
  using L = Lanes<kWordBytesOf>;
  static constexpr size_t kWordBytes = kWordBytesOf;

  explicit WholeLanes(const ClassCuts& cuts) : magnitude(L::spread(cuts.magnitude_mask)) {
    for (unsigned c = 0; c < cuts.cuts; ++c) from[c] = L::spread(cuts.from[c]);
  }
  struct Group {
    __m256i x[2 * kWordBytes];
  };
  Group read(const std::byte* p) const {
    Group group;
    for (size_t r = 0; r < 2 * kWordBytes; ++r)
      group.x[r] = _mm256_and_si256(load(p + r * 32), magnitude);
    return group;
  }
  uint64_t at_least(const Group& group, unsigned c) const { return L::at_least(group.x, from[c]); }

  __m256i magnitude;
  __m256i from[kMaxCuts];
};

template <class Compare, unsigned kCuts>
void classify_by(const std::byte* words, size_t n, const ClassCuts& cuts, ClassWindow* window) {
  constexpr size_t kWordBytes = Compare::kWordBytes;
  constexpr size_t kGroupBytes = kGroupElements * kWordBytes;
  const Compare compare(cuts);
  uint32_t before[kCuts + 1] = {};
  const size_t groups = (n + kGroupElements - 1) / kGroupElements;
  for (size_t group = 0; group < groups; ++group) {
    const size_t left = n - group * kGroupElements;
    const uint64_t valid = left >= kGroupElements ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    const std::byte* p = words + group * kGroupBytes;
    for (size_t at = 0; at < kGroupBytes; at += 64)
      _mm_prefetch(reinterpret_cast<const char*>(p) + kAheadBytes + at, _MM_HINT_T0);
    std::byte tail[kGroupBytes];
    if (left < kGroupElements) {
      std::memset(tail, 0, sizeof tail);
      std::memcpy(tail, p, left * kWordBytes);
      p = tail;
    }
    const typename Compare::Group x = compare.read(p);
    uint64_t above = valid;
#pragma GCC unroll 9
    for (unsigned c = 0; c <= kCuts; ++c) {
      const uint64_t at_least = c < kCuts ? compare.at_least(x, c < kCuts ? c : 0) & valid : 0;
      const uint64_t members = above & ~at_least;
      above = at_least;
      window->members[c][group] = members;
      window->before[c][group] = static_cast<uint16_t>(before[c]);
      if (c == 0) {
        // Mostly no more than four: written without asking how many, since a branch on that would
        // be guessed wrong every other time. `lowest` has room for it.
        uint16_t* out = window->lowest + before[0];
        uint64_t rest = members;
        const auto base = static_cast<uint16_t>(group * kGroupElements);
        for (unsigned i = 0; i < 4; ++i, rest = _blsr_u64(rest))
          out[i] = static_cast<uint16_t>(base + _tzcnt_u64(rest));
        for (out += 4; rest != 0; rest = _blsr_u64(rest))
          *out++ = static_cast<uint16_t>(base + _tzcnt_u64(rest));
      }
      before[c] += static_cast<uint32_t>(_mm_popcnt_u64(members));
    }
  }
  for (unsigned c = 0; c <= kCuts; ++c)
    window->before[c][groups] = static_cast<uint16_t>(before[c]);
}

template <class Compare>
constexpr Kernels::Classify kByCuts[kMaxCuts + 1] = {
    classify_by<Compare, 1>, classify_by<Compare, 1>, classify_by<Compare, 2>,
    classify_by<Compare, 3>, classify_by<Compare, 4>, classify_by<Compare, 5>,
    classify_by<Compare, 6>, classify_by<Compare, 7>, classify_by<Compare, 8>};

// The number of cuts is constant for the compiler, so that counts stay in registers.
template <size_t kWordBytes>
void classify_words(const std::byte* words, size_t n, const ClassCuts& cuts, ClassWindow* window) {
  const bool packed = kWordBytes == 2 && PackedLanes::can(cuts);
  const Kernels::Classify* const by_cuts =
      packed ? kByCuts<PackedLanes> : kByCuts<WholeLanes<kWordBytes>>;
  by_cuts[cuts.cuts](words, n, cuts, window);
}

}  // namespace

void avx2_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                 size_t count, uint64_t first_rank, uint16_t* positions) {
  size_t group = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t rank = ranks[i] - first_rank;
    while (before[group + 1] <= rank) ++group;
    const uint64_t bit = _pdep_u64(uint64_t{1} << (rank - before[group]), members[group]);
    positions[i] = static_cast<uint16_t>(group * kGroupElements + _tzcnt_u64(bit));
  }
}

const Kernels::Classify kAvx2Classify[4] = {classify_words<1>, classify_words<2>, classify_words<4>,
                                            classify_words<8>};

}  // namespace siltstone
