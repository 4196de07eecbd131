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

void* operator new(size_t size, const std::nothrow_t&) noexcept {
  largest = std::max(largest, size);
  return std::malloc(size);
}
void* operator new(size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
