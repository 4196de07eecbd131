#include "delta/diff.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

// Makes room for at least `elements`, doubling so that a long list is copied rarely.
template <class T>
void grow(std::vector<T>* list, size_t elements) {
  if (list->size() < elements) list->resize(std::max(elements, 2 * list->size()));
}

}  // namespace

void ChangeList::clear(unsigned word_bytes) {
  word_bytes_ = word_bytes;
  changed_ = 0;
  run_ends_.clear();
}

// Right behind the comparison, while the run is in the cache.
void ChangeList::gather_replaced(uint64_t begin, const std::byte* base) {
  const auto gather = [&](auto word) {
    using Word = decltype(word);
    for (uint64_t i = begin; i < changed_; ++i) {
      std::memcpy(replaced_.data() + i * sizeof(Word), base + positions_[i] * sizeof(Word),
                  sizeof(Word));
    }
  };
  switch (word_bytes_) {
    case 1:
      return gather(uint8_t{});
    case 2:
      return gather(uint16_t{});
    case 4:
      return gather(uint32_t{});
    default:
      return gather(uint64_t{});
  }
}

template <class Kernel, class Base>
void ChangeList::append_runs(Kernel kernel, ByteSpan next, unsigned next_word_bytes, Base* base,
                             bool keep_replaced) {
  const uint64_t elements = next.size() / next_word_bytes;
  for (uint64_t begin = 0; begin < elements; begin += kRunElements) {
    const size_t run = std::min(kRunElements, elements - begin);
    const size_t room = changed_ + run + kDiffSlack;
    grow(&positions_, room);
    grow(&words_, room * word_bytes_);
    const uint64_t before = changed_;
    changed_ += kernel(next.data() + begin * next_word_bytes, base + begin * word_bytes_, run,
                       positions_.data() + changed_, words_.data() + changed_ * word_bytes_);
    if (keep_replaced) {
      grow(&replaced_, changed_ * word_bytes_);
      gather_replaced(before, base + begin * word_bytes_);
    }
    run_ends_.push_back(changed_);
  }
}

void ChangeList::append(ByteSpan next, ByteSpan base) {
  append_runs(kernels().diff[std::countr_zero(word_bytes_)], next, word_bytes_, base.data(),
              /*keep_replaced=*/true);
}

void ChangeList::append_refresh(ByteSpan next, MutByteSpan base) {
  append_runs(kernels().diff_refresh[std::countr_zero(word_bytes_)], next, word_bytes_, base.data(),
              /*keep_replaced=*/false);
}

void ChangeList::append_cast(ByteSpan f32, ByteSpan base, MutByteSpan next) {
  std::byte* rounded = next.data();
  const auto keep = [&rounded](const std::byte* from, const std::byte* old, size_t n,
                               uint16_t* positions, std::byte* words) {
    const size_t count = kernels().diff_cast_keep(from, old, n, positions, words, rounded);
    rounded += n * sizeof(uint16_t);
    return count;
  };
  append_runs(keep, f32, sizeof(uint32_t), base.data(), /*keep_replaced=*/true);
}

void ChangeList::append_cast_refresh(ByteSpan f32, MutByteSpan base) {
  append_runs(kernels().diff_cast_refresh, f32, sizeof(uint32_t), base.data(),
              /*keep_replaced=*/false);
}

TileChange tile_change(DType dtype, ByteSpan old_words, ByteSpan new_words,
                       const ChangeList& changes) {
  TileChange change;
  change.dtype = dtype;
  change.elements = old_words.size() / dtype_info(dtype).word_bytes;
  change.old_words = old_words;
  change.new_words = new_words;
  change.positions = changes.positions();
  change.run_ends = changes.run_ends();
  change.changed_words = changes.words();
  change.replaced_words = changes.replaced_words();
  return change;
}

}  // namespace siltstone
