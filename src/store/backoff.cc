#include "store/backoff.h"

#include <algorithm>
#include <cmath>
#include <thread>

namespace siltstone {
namespace {

constexpr double kFirstSeconds = 0.1;
constexpr double kMostSeconds = 10;
constexpr double kMostAskedSeconds = 60;
// Even the luckiest draw gives a server some air.
constexpr double kLeastSeconds = 0.005;

}  // namespace

double Backoff::next_seconds(double asked_seconds) {
  const double bound = std::min(kMostSeconds, std::ldexp(kFirstSeconds, std::min(attempt_, 20U)));
  ++attempt_;
  const double drawn = std::uniform_real_distribution<double>(0, bound)(random_);
  const double wait = std::max({drawn, kLeastSeconds, std::min(asked_seconds, kMostAskedSeconds)});
  return elapsed_seconds() + wait > total_seconds_ ? -1 : wait;
}

bool sleep_unless(double seconds, const std::atomic<bool>* stop) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPiece = std::chrono::milliseconds(50);
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(seconds));
  const auto stopped = [stop] { return stop != nullptr && stop->load(); };
  while (!stopped() && Clock::now() < end)
    std::this_thread::sleep_for(std::min<Clock::duration>(kPiece, end - Clock::now()));
  return !stopped();
}

}  // namespace siltstone
