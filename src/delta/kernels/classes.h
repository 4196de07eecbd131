// Classes of words by magnitude: what the class codec counts its gaps in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace siltstone {

inline constexpr size_t kWindowElements = 8192;
inline constexpr size_t kGroupElements = 64;
inline constexpr size_t kWindowGroups = kWindowElements / kGroupElements;
inline constexpr unsigned kMaxCuts = 8;

// A word is in class c if `from` has exactly c entries <= (word & magnitude_mask).
struct ClassCuts {
  uint64_t magnitude_mask = 0;
  uint64_t from[kMaxCuts] = {};  // ascending; those beyond `cuts` are not looked at
  unsigned cuts = 1;             // at least 1; so there are cuts + 1 classes
};

// The classes of the words of one window. Entries of classes and groups beyond those asked for are
// unspecified.
struct ClassWindow {
  uint64_t members[kMaxCuts + 1][kWindowGroups];      // bit i: word 64 * group + i is in the class
  uint16_t before[kMaxCuts + 1][kWindowGroups + 1];   // members in the groups before
  uint16_t lowest[kWindowElements + kGroupElements];  // positions of class 0, ascending
};

}  // namespace siltstone
