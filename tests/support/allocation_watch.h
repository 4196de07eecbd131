// Watches operator new of the whole program; add allocation_watch.cc to the test's sources.
#pragma once

#include <cstddef>

namespace siltstone::test {

// Largest single allocation of this thread since reset_largest_allocation().
size_t largest_allocation();
void reset_largest_allocation();

}  // namespace siltstone::test
