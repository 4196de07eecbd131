#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "delta/kernels/sets.h"

namespace siltstone {
namespace {

struct Runnable {
  std::array<const Kernels*, 3> sets{};
  size_t count = 0;
  void add(const Kernels& set) { sets[count++] = &set; }
};

Runnable probe_cpu() {
  Runnable runnable;
  runnable.add(kScalarKernels);
#if defined(__x86_64__)
  // __builtin_cpu_supports also asks whether the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  if (avx2) runnable.add(kAvx2Kernels);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vbmi2")) {
    runnable.add(__builtin_cpu_is("intel") ? kAvx512AheadKernels : kAvx512Kernels);
  }
#endif
  return runnable;
}

const Kernels& choose_kernels() {
  const std::span<const Kernels* const> runnable = runnable_kernels();
  const char* forced = std::getenv("SILTSTONE_KERNELS");
  if (forced == nullptr || *forced == '\0') return *runnable.back();
  std::string names;
  for (const Kernels* set : runnable) {
    if (set->name == forced) return *set;
    if (!names.empty()) names += ", ";
    names += set->name;
  }
  std::fprintf(stderr,
               "siltstone: SILTSTONE_KERNELS=%s: no kernels of this name run on this CPU; choose "
               "one of %s, or unset it\n",
               forced, names.c_str());
  // Not exit(): another thread may be at work, and no destructor may find half-built state.
  std::_Exit(2);
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> set = &choose_kernels();
  return set;
}

}  // namespace

std::span<const Kernels* const> runnable_kernels() {
  static const Runnable runnable = probe_cpu();
  return {runnable.sets.data(), runnable.count};
}

const Kernels& kernels() {
  return *chosen().load(std::memory_order_relaxed);
}

void use_kernels(const Kernels& set) {
  chosen() = &set;
}

}  // namespace siltstone
