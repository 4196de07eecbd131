// What the class encoder's first pass leaves for its second.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "delta/codecs/class_layout.h"

namespace siltstone {

// What the encoder uses of what the format allows.
inline constexpr unsigned kEncodedSparse = 6;
inline constexpr unsigned kEncodedTables = 12;

// A change of a sparse class: its gap, which is below 2^24, and
inline constexpr uint32_t kDownBit = 1U << 31;
inline constexpr uint32_t kExceptionBit = 1U << 30;
inline constexpr uint32_t kGapMask = kExceptionBit - 1;

template <class W>
struct ClassRecord {
  std::array<std::vector<uint32_t>, kEncodedSparse> gaps;  // with the bits above
  std::array<std::vector<W>, kEncodedSparse> exceptions;   // new words, in order
  std::vector<uint16_t> codes;                             // of dense words (kernels/rans.h)
  std::vector<W> wide_steps;                               // of the symbols that raw bits follow
  std::vector<uint32_t> window_ends;                       // in `codes`

  void clear() {
    for (auto& gaps_of_class : gaps) gaps_of_class.clear();
    for (auto& words : exceptions) words.clear();
    codes.clear();
    wide_steps.clear();
    window_ends.clear();
  }
};

// What a section's tables make of codes.
class ClassTables {
 public:
  explicit ClassTables(const ClassParams& params);
  const RansRange* ranges() const { return ranges_.data(); }
  bool lacks(uint16_t code) const { return ranges_[code].frequency == 0; }

 private:
  std::vector<RansRange> ranges_;
};

// The payload of a block.
template <class W>
std::vector<std::byte> write_class_block(const ClassRecord<W>& record, const ClassParams& params,
                                         const ClassTables& tables);

}  // namespace siltstone
