// A loop over independent pieces of work on several threads: the first error wins, the rest stop.
#pragma once

#include <cstdint>
#include <functional>

#include "siltstone/result.h"

namespace siltstone {

// Threads this process may use: the CPUs of its affinity mask.
unsigned available_threads();

// Calls body(item, worker) once for every item in [0, items), worker in [0, threads), items in
// ascending order as workers become free. After an error no new item is begun; the error of the
// lowest failed item is returned. threads = 0 means available_threads(). Allocation failure in a
// worker is rethrown on the calling thread.
Status parallel_for(uint64_t items, unsigned threads,
                    const std::function<Status(uint64_t item, unsigned worker)>& body);

}  // namespace siltstone
