// Paired runs: what is measured runs right after the yardstick it is compared with, and a ratio is
// the median over rounds of the quotient of the two. Other work on the machine then slows both
// sides of a quotient alike. Times are the calling thread's CPU time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace siltstone::bench {

inline double thread_cpu_seconds(const std::function<void()>& run) {
  timespec begin{};
  timespec end{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
  run();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return static_cast<double>(end.tv_sec - begin.tv_sec) +
         static_cast<double>(end.tv_nsec - begin.tv_nsec) * 1e-9;
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

class Paired {
 public:
  // The yardstick must leave everything as it finds it.
  explicit Paired(std::function<void()> yardstick) : yardstick_(std::move(yardstick)) {}

  // `prepare` runs before each `run`, untimed. Returns the variant's number.
  size_t add(
      std::string name, std::function<void()> run, std::function<void()> prepare = [] {}) {
    variants_.push_back({std::move(name), std::move(run), std::move(prepare), {}, {}});
    return variants_.size() - 1;
  }

  // One round more than asked: the first warms up and is not counted.
  void run(unsigned rounds) {
    for (unsigned round = 0; round <= rounds; ++round) {
      for (size_t i = 0; i < variants_.size(); ++i) {
        Variant& variant = variants_[(i + round) % variants_.size()];
        variant.prepare();
        // Once for nothing: it writes back what `prepare` has left in the caches.
        yardstick_();
        const double yardstick = thread_cpu_seconds(yardstick_);
        const double seconds = thread_cpu_seconds(variant.run);
        if (round == 0) continue;
        variant.seconds.push_back(seconds);
        variant.speeds.push_back(yardstick / seconds);
      }
    }
  }

  size_t size() const { return variants_.size(); }
  const std::string& name(size_t i) const { return variants_[i].name; }
  double seconds(size_t i) const { return median(variants_[i].seconds); }
  // How many times as fast as the yardstick.
  double speed(size_t i) const { return median(variants_[i].speeds); }

 private:
  struct Variant {
    std::string name;
    std::function<void()> run;
    std::function<void()> prepare;
    std::vector<double> seconds;
    std::vector<double> speeds;
  };
  std::function<void()> yardstick_;
  std::vector<Variant> variants_;
};

}  // namespace siltstone::bench
