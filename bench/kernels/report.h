// What the parts of bench_kernels share: options, memory, the yardstick's choice, the printed
// table.
#pragma once

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "paired.h"

namespace siltstone::bench {

// Streams an exact power of two apart slow each other down, so one mapping holds both with a gap:
// two mappings of their own would lie back to back.
inline constexpr size_t kSkewBytes = (1U << 20) + (64U << 10);

struct Options {
  size_t mib = 512;
  unsigned rounds = 15;
  bool json = false;
  bool only_cast = false;
};

inline std::byte* map_huge(size_t bytes) {
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  madvise(map, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(map);
}

class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  ~Report() {
    if (json_) std::printf("\n]\n");
  }

  void add(const char* section, double density, const std::string& name, double gb_per_second,
           double ratio) {
    if (json_) {
      std::printf(
          "%s\n  {\"section\": \"%s\", \"density\": %g, \"name\": \"%s\", \"gb_per_second\": %.2f, "
          "\"ratio\": %.3f}",
          first_ ? "[" : ",", section, density, name.c_str(), gb_per_second, ratio);
    } else {
      if (section_ != section)
        std::printf("\n%-8s %8s  %-34s %7s %7s\n", section, "density", "", "GB/s", "ratio");
      std::printf("%-8s %7.1f%%  %-34s %7.2f %7.3f\n", "", density * 100, name.c_str(),
                  gb_per_second, ratio);
      std::fflush(stdout);
    }
    section_ = section;
    first_ = false;
  }

 private:
  bool json_;
  bool first_ = true;
  std::string_view section_;
};

// Of several reads, the fastest now.
inline std::function<void()> fastest(const std::vector<std::function<void()>>& reads) {
  std::vector<std::vector<double>> seconds(reads.size());
  for (int round = 0; round < 7; ++round) {
    for (size_t i = 0; i < reads.size(); ++i) seconds[i].push_back(thread_cpu_seconds(reads[i]));
  }
  size_t best = 0;
  for (size_t i = 1; i < reads.size(); ++i) {
    if (median(seconds[i]) < median(seconds[best])) best = i;
  }
  return reads[best];
}

inline void report_all(Report* report, const char* section, double density, const Paired& runs,
                       size_t bytes) {
  for (size_t i = 0; i < runs.size(); ++i) {
    report->add(section, density, runs.name(i), 1e-9 * static_cast<double>(bytes) / runs.seconds(i),
                runs.speed(i));
  }
}

}  // namespace siltstone::bench
