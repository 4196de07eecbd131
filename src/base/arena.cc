#include "base/arena.h"

#include <sys/mman.h>

#include <new>

namespace siltstone {
namespace {

// Two streams whose distance is a multiple of a large power of two fight for the same cache sets; a
// copy laid out as its original would be at just such a distance.
constexpr uint64_t kSkewBytes = (uint64_t{1} << 20) + (uint64_t{64} << 10);

}  // namespace

Arena::Arena(uint64_t size_bytes)
    : mapped_bytes_(size_bytes + kSkewBytes), size_bytes_(size_bytes) {
  void* memory = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  ::madvise(memory, mapped_bytes_, MADV_HUGEPAGE);  // advice: refusing it costs speed alone
  base_ = static_cast<std::byte*>(memory);
}

Arena::~Arena() {
  if (base_ != nullptr) ::munmap(base_, mapped_bytes_);
}

MutByteSpan Arena::bytes() const {
  if (base_ == nullptr) return {};
  return {base_ + kSkewBytes, size_bytes_};
}

}  // namespace siltstone
