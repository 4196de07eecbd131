// The hot loops, one implementation per instruction set. scalar.cc defines what they do; the others
// must agree with it bit for bit (tests/unit/delta/kernels_test.cc holds them equal).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "delta/digest.h"
#include "delta/kernels/classes.h"
#include "delta/kernels/rans.h"

namespace siltstone {

// Output buffers of the diff kernels must hold this many elements beyond the run's length: vector
// kernels store whole registers.
inline constexpr size_t kDiffSlack = 64;

struct Kernels {
  std::string_view name;  // "scalar", "avx2", "avx512"

  // Compares `n` <= 65,536 words; writes the positions that differ, ascending, and the words of
  // `next` there; returns their count. Index = log2 of the word size: 1, 2, 4, 8 bytes.
  // Pointers need no alignment. Buffers do not overlap.
  using Diff = size_t (*)(const std::byte* next, const std::byte* base, size_t n,
                          uint16_t* positions, std::byte* words);
  Diff diff[4];

  // The same, and makes `base` equal to `next` in the same pass. Unchanged words of the run may
  // be written too, with the value they have.
  using DiffRefresh = size_t (*)(const std::byte* next, std::byte* base, size_t n,
                                 uint16_t* positions, std::byte* words);
  DiffRefresh diff_refresh[4];

  // The same for `n` <= 65,536 fp32 words `next` against bf16 words `base`: what is compared,
  // listed and refreshed is `next` rounded to bf16 as bf16_of_f32 (base/bf16.h) rounds. `words`
  // takes 2 bytes per change.
  Diff diff_cast;
  DiffRefresh diff_cast_refresh;

  // diff_cast that also writes all `n` rounded words to `rounded`, and nothing beyond them.
  size_t (*diff_cast_keep)(const std::byte* next, const std::byte* base, size_t n,
                           uint16_t* positions, std::byte* words, std::byte* rounded);

  // Rounds `n` fp32 words, any number of them, to as many bf16 words. Writes nothing beyond them.
  // Pointers need no alignment. Buffers do not overlap.
  void (*cast)(const std::byte* f32, size_t n, std::byte* bf16);

  // digest.h: digest_bytes for whole 8-byte words: `n_words` words starting at word `first_word`.
  Sum128 (*digest)(const std::byte* bytes, size_t n_words, uint64_t first_word);

  // Sorts `n` <= 8,192 words into classes: fills `window` for ceil(n / 64) groups and cuts + 1
  // classes. Index as above.
  using Classify = void (*)(const std::byte* words, size_t n, const ClassCuts& cuts,
                            ClassWindow* window);
  const Classify* classify;

  // Positions (in the window) of the members number ranks[i] - first_rank of one class, given the
  // class's rows of a ClassWindow. REQUIRES: ranks ascend without repeats, and all are members.
  void (*locate)(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                 size_t count, uint64_t first_rank, uint16_t* positions);

  // Decodes `n` rANS symbols (rans.h). Returns how many of the `words` were used, or kCutOff if
  // there are too few.
  size_t (*decode_symbols)(const RansInput& input, uint32_t* states, uint8_t* symbols);
};

// The best set this CPU runs, or the one that SILTSTONE_KERNELS (scalar, avx2, avx512) names. A
// name that this CPU cannot run, or that is unknown, ends the process with a message and status 2:
// silently testing another kernel would be worse.
const Kernels& kernels();

// What kernels() gives from now on, in all threads. For tests that compare the sets.
void use_kernels(const Kernels& set);

// Those this CPU can run, scalar first.
std::span<const Kernels* const> runnable_kernels();

}  // namespace siltstone
