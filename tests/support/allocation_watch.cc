#include "support/allocation_watch.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
thread_local size_t largest = 0;
}  // namespace

namespace siltstone::test {
size_t largest_allocation() {
  return largest;
}
void reset_largest_allocation() {
  largest = 0;
}
}  // namespace siltstone::test

void* operator new(size_t size) {
  largest = std::max(largest, size);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
