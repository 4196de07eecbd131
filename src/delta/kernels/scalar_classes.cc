// The definition of classify, in plain C++.
#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

template <class Word>
void classify_words(const std::byte* words, size_t n, const ClassCuts& cuts, ClassWindow* window) {
  const unsigned classes = cuts.cuts + 1;
  uint16_t counts[kMaxCuts + 1] = {};
  const size_t groups = ceil_div(n, kGroupElements);
  for (size_t group = 0; group < groups; ++group) {
    uint64_t members[kMaxCuts + 1] = {};
    const size_t begin = group * kGroupElements;
    const size_t end = std::min(begin + kGroupElements, n);
    for (size_t i = begin; i < end; ++i) {
      const uint64_t magnitude = load_le<Word>(words + i * sizeof(Word)) & cuts.magnitude_mask;
      unsigned of = 0;
      while (of < cuts.cuts && cuts.from[of] <= magnitude) ++of;
      members[of] |= uint64_t{1} << (i - begin);
      if (of == 0)
        window->lowest[counts[0] + std::popcount(members[0]) - 1] = static_cast<uint16_t>(i);
    }
    for (unsigned c = 0; c < classes; ++c) {
      window->members[c][group] = members[c];
      window->before[c][group] = counts[c];
      counts[c] = static_cast<uint16_t>(counts[c] + std::popcount(members[c]));
    }
  }
  for (unsigned c = 0; c < classes; ++c) window->before[c][groups] = counts[c];
}

}  // namespace

void scalar_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                   size_t count, uint64_t first_rank, uint16_t* positions) {
  size_t group = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t rank = ranks[i] - first_rank;
    while (before[group + 1] <= rank) ++group;
    uint64_t mask = members[group];
    for (uint64_t below = rank - before[group]; below > 0; --below) mask &= mask - 1;
    positions[i] = static_cast<uint16_t>(group * kGroupElements + std::countr_zero(mask));
  }
}

const Kernels::Classify kScalarClassify[4] = {classify_words<uint8_t>, classify_words<uint16_t>,
                                              classify_words<uint32_t>, classify_words<uint64_t>};

}  // namespace siltstone
