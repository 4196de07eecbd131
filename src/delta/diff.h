// Changes of one stretch of words as runs of 65,536: the form that kernels emit and encoders read.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "delta/digest.h"
#include "siltstone/codec.h"

namespace siltstone {

// Growing list of changes; reused from tile to tile so that steady state allocates nothing.
class ChangeList {
 public:
  explicit ChangeList(unsigned word_bytes = 1) : word_bytes_(word_bytes) {}
  void clear(unsigned word_bytes);

  // Appends the changes between two buffers of equal size, a whole number of words, cut into runs
  // of kRunElements. REQUIRES: what was appended before was a whole number of runs.
  void append(ByteSpan next, ByteSpan base);
  // The same, refreshing `base`.
  void append_refresh(ByteSpan next, MutByteSpan base);

  // The same for bf16 words, where the next version is `f32`, fp32 words of twice the size, rounded
  // (base/bf16.h). append_cast also leaves the rounded words in `next`, for encoders and digests
  // that need those too that did not change. REQUIRES: cleared for words of 2 bytes.
  void append_cast(ByteSpan f32, ByteSpan base, MutByteSpan next);
  void append_cast_refresh(ByteSpan f32, MutByteSpan base);

  uint64_t changed() const { return changed_; }
  std::span<const uint16_t> positions() const { return {positions_.data(), changed_}; }
  std::span<const uint64_t> run_ends() const { return run_ends_; }
  ByteSpan words() const { return {words_.data(), changed_ * word_bytes_}; }
  // The words of `base` at the changed positions; not kept by append_refresh.
  ByteSpan replaced_words() const { return {replaced_.data(), changed_ * word_bytes_}; }

 private:
  // `next` has words of `next_word_bytes`.
  template <class Kernel, class Base>
  void append_runs(Kernel kernel, ByteSpan next, unsigned next_word_bytes, Base* base,
                   bool keep_replaced);
  void gather_replaced(uint64_t begin, const std::byte* base);

  unsigned word_bytes_;
  uint64_t changed_ = 0;
  std::vector<uint16_t> positions_;
  std::vector<std::byte> words_;
  std::vector<std::byte> replaced_;
  std::vector<uint64_t> run_ends_;
};

// A tile's change as encoders see it. Borrows everything; `changes` has what old and new words
// differ in, and nothing is known of the words before the old ones.
TileChange tile_change(DType dtype, ByteSpan old_words, ByteSpan new_words,
                       const ChangeList& changes);

}  // namespace siltstone
