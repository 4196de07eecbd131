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
#include "delta/kernels/word_steps.h"

namespace siltstone {

// Output buffers of the diff kernels must hold this many elements beyond the run's length: vector
// kernels store whole registers.
inline constexpr size_t kDiffSlack = 64;

// The same for those of find_tables and take_steps.
inline constexpr size_t kStepSlack = 64;

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

  // The dense words of a window of `n` words are those of class 0, k of them. Outputs must have
  // room for kStepSlack elements more. Index as above. `earlier` are the words of the version
  // before `words`: then what is coded is what momentum leaves open (Momentum), and there are
  // kMomentumContexts tables for each exponent. It may be null.
  //
  // The tables that k words are coded with.
  using FindTables = void (*)(const StepCoding& coding, const std::byte* words,
                              const std::byte* earlier, size_t n, const ClassWindow& window,
                              uint8_t* tables);
  const FindTables* find_tables;
  // Their steps to `next` as k codes, RansSymbols::codes, and those steps that raw bits follow, as
  // words. Returns how many these are.
  using TakeSteps = size_t (*)(const StepCoding& coding, const std::byte* words,
                               const std::byte* earlier, const std::byte* next, size_t n,
                               const ClassWindow& window, uint16_t* codes, std::byte* wide_steps);
  const TakeSteps* take_steps;
  // Moves the words by k symbols, taking raw bits where these ask for them. Returns how many
  // symbols were not 0 (with `earlier`: how many words moved), or kCutOff if the raw bits are too
  // few or a symbol asks for more than a word has.
  using MakeSteps = size_t (*)(const StepCoding& coding, std::byte* words, const std::byte* earlier,
                               size_t n, const ClassWindow& window, const uint8_t* symbols,
                               RawBits* raw);
  const MakeSteps* make_steps;

  // Decodes `n` rANS symbols (rans.h). Returns how many of the `words` were used, or kCutOff if
  // there are too few.
  size_t (*decode_symbols)(const RansInput& input, uint32_t* states, uint8_t* symbols);

  // Its inverse: takes the symbols from the last to the first and writes words downwards from
  // `end`. Returns where they begin, at most `n` words below.
  uint16_t* (*encode_symbols)(const RansSymbols& input, uint32_t* states, uint16_t* end);
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
