// Paired runs: every round runs every variant once, in an order that rotates, and a ratio is the
// median over rounds of the quotient within one round. Other work on the machine then slows both
// sides of a quotient alike. Times are the calling thread's CPU time.
#pragma once

#include <algorithm>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace siltstone::bench {

inline double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

class Paired {
 public:
  // `prepare` runs before each `run`, untimed. Returns the variant's number.
  size_t add(
      std::string name, std::function<void()> run, std::function<void()> prepare = [] {}) {
    variants_.push_back({std::move(name), std::move(run), std::move(prepare), {}});
    return variants_.size() - 1;
  }

  // One round more than asked: the first warms up and is not counted.
  void run(unsigned rounds) {
    for (unsigned round = 0; round <= rounds; ++round) {
      for (size_t i = 0; i < variants_.size(); ++i) {
        Variant& variant = variants_[(i + round) % variants_.size()];
        variant.prepare();
        const double begin = thread_cpu_seconds();
        variant.run();
        const double seconds = thread_cpu_seconds() - begin;
        if (round > 0) variant.seconds.push_back(seconds);
      }
    }
  }

  size_t size() const { return variants_.size(); }
  const std::string& name(size_t i) const { return variants_[i].name; }
  double seconds(size_t i) const { return median(variants_[i].seconds); }
  // How many times as fast as `baseline` variant i is.
  double speed(size_t i, size_t baseline) const {
    std::vector<double> quotients;
    for (size_t round = 0; round < variants_[i].seconds.size(); ++round) {
      quotients.push_back(variants_[baseline].seconds[round] / variants_[i].seconds[round]);
    }
    return median(quotients);
  }

 private:
  struct Variant {
    std::string name;
    std::function<void()> run;
    std::function<void()> prepare;
    std::vector<double> seconds;
  };
  std::vector<Variant> variants_;
};

}  // namespace siltstone::bench
