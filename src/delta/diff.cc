#include "delta/diff.h"

#include <algorithm>
#include <bit>

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

template <class Kernel, class Base>
void ChangeList::append_runs(Kernel kernel, ByteSpan next, Base* base) {
  const uint64_t elements = next.size() / word_bytes_;
  for (uint64_t begin = 0; begin < elements; begin += kRunElements) {
    const size_t run = std::min(kRunElements, elements - begin);
    const size_t room = changed_ + run + kDiffSlack;
    grow(&positions_, room);
    grow(&words_, room * word_bytes_);
    changed_ += kernel(next.data() + begin * word_bytes_, base + begin * word_bytes_, run,
                       positions_.data() + changed_, words_.data() + changed_ * word_bytes_);
    run_ends_.push_back(changed_);
  }
}

void ChangeList::append(ByteSpan next, ByteSpan base) {
  append_runs(kernels().diff[std::countr_zero(word_bytes_)], next, base.data());
}

void ChangeList::append_refresh(ByteSpan next, MutByteSpan base) {
  append_runs(kernels().diff_refresh[std::countr_zero(word_bytes_)], next, base.data());
}

}  // namespace siltstone
