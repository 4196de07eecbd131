#include "kernels/cast_bench.h"

#include <cmath>
#include <cstring>
#include <random>

#include "base/bf16.h"
#include "base/bytes.h"
#include "delta/diff.h"
#include "delta/grid.h"
#include "delta/kernels/kernels.h"
#include "kernels/reads.h"

namespace siltstone::bench {
namespace {

constexpr size_t kWide = 4;    // fp32
constexpr size_t kNarrow = 2;  // bf16
constexpr size_t kRunBytes = kRunElements * kNarrow;

volatile uint64_t g_sink;

// Long fp32 and bf16 tensors that agree but for a share of the words, a bf16 tensor to cast into,
// and room for a tile's list. Sizes are of bf16.
class CastStreams {
 public:
  explicit CastStreams(size_t bytes)
      : bytes_(bytes),
        f32_(map_huge(4 * bytes + 2 * kSkewBytes)),
        base_(f32_ + 2 * bytes + kSkewBytes),
        whole_(base_ + bytes + kSkewBytes),
        positions_(kTileBytes / kNarrow + kDiffSlack, 1),
        words_(kTileBytes + kDiffSlack * kNarrow, std::byte{1}),
        tile_(kTileBytes, std::byte{1}) {
    std::mt19937_64 random(1);
    for (size_t i = 0; i < 2 * bytes; i += 8) store_le<uint64_t>(f32_ + i, random());
    kernels().cast(f32_, bytes / kNarrow, base_);
    std::memcpy(whole_, base_, bytes);
  }

  // Makes a uniformly random share of the base's words differ, in one bit each.
  void set_density(double density) {
    set_changed(0);
    changed_.clear();
    std::mt19937_64 random(2);
    std::uniform_real_distribution<double> uniform(0, 1);
    const double scale = 1 / std::log1p(-density);
    const auto words = static_cast<double>(bytes_ / kNarrow);
    for (double at = -1;;) {
      at += 1 + std::floor(std::log1p(-uniform(random)) * scale);
      if (at >= words) break;
      changed_.push_back(static_cast<uint32_t>(at));
    }
    restore_base();
  }

  // After a pass that refreshed the base.
  void restore_base() { set_changed(1); }

  void fused(Kernels::DiffRefresh kernel) {
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      return kernel(f32_ + 2 * at, base_ + at, kRunElements, positions, words);
    });
  }
  void fused(Kernels::Diff kernel) {
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      return kernel(f32_ + 2 * at, base_ + at, kRunElements, positions, words);
    });
  }
  // The tile's new words are there afterwards, as encoders need them.
  void fused_keeping(const Kernels& set) {
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      return set.diff_cast_keep(f32_ + 2 * at, base_ + at, kRunElements, positions, words,
                                tile_.data() + at % kTileBytes);
    });
  }
  // The same by two kernels, run by run.
  void cast_runs_and_diff(const Kernels& set) {
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      std::byte* next = tile_.data() + at % kTileBytes;
      set.cast(f32_ + 2 * at, kRunElements, next);
      return set.diff[1](next, base_ + at, kRunElements, positions, words);
    });
  }
  // The same with one run's scratch: what listing costs where nobody needs the whole tile.
  void cast_runs_and_refresh(const Kernels& set) {
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      set.cast(f32_ + 2 * at, kRunElements, tile_.data());
      return set.diff_refresh[1](tile_.data(), base_ + at, kRunElements, positions, words);
    });
  }
  // A bf16 copy of everything first, as a trainer without these kernels makes it.
  void cast_all_and_refresh(const Kernels& set) {
    set.cast(f32_, bytes_ / kNarrow, whole_);
    run([&](size_t at, uint16_t* positions, std::byte* words) {
      return set.diff_refresh[1](whole_ + at, base_ + at, kRunElements, positions, words);
    });
  }

  size_t bytes() const { return bytes_; }
  const std::byte* f32() const { return f32_; }
  const std::byte* base() const { return base_; }

 private:
  // Sets the base's word at each listed place to the master's, rounded, with some bits flipped.
  void set_changed(uint16_t flipped) {
    for (const uint32_t i : changed_) {
      const auto master = load_le<uint32_t>(f32_ + size_t{i} * kWide);
      store_le<uint16_t>(base_ + size_t{i} * kNarrow, bf16_of_f32(master) ^ flipped);
    }
  }

  template <class Run>
  void run(const Run& each_run) {
    size_t total = 0;
    size_t count = 0;
    for (size_t at = 0; at < bytes_; at += kRunBytes) {
      if (at % kTileBytes == 0) {
        total += count;
        count = 0;
      }
      count += each_run(at, positions_.data() + count, words_.data() + count * kNarrow);
    }
    if (total + count == changed_.size()) return;
    std::fprintf(stderr, "bench_kernels: a kernel found %zu changes of %zu\n", total + count,
                 changed_.size());
    std::exit(1);
  }

  size_t bytes_;
  std::byte* f32_;
  std::byte* base_;
  std::byte* whole_;
  std::vector<uint32_t> changed_;
  std::vector<uint16_t> positions_;
  std::vector<std::byte> words_;
  std::vector<std::byte> tile_;
};

std::function<void()> best_read(const CastStreams* streams) {
  std::vector<std::function<void()>> reads;
  for (const ReadLoop& loop : read_loops()) {
    reads.push_back([streams, &loop] {
      g_sink = loop.wide_and_narrow(streams->f32(), streams->base(), streams->bytes());
    });
  }
  return fastest(reads);
}

}  // namespace

void bench_cast(const Options& options, Report* report) {
  // As many bytes of fp32 as the other parts have of bf16.
  CastStreams owned((options.mib << 20) / 2);
  CastStreams* streams = &owned;
  for (const double density : {0.001, 0.01, 0.05, 0.1}) {
    streams->set_density(density);
    const auto restore = [=] { streams->restore_base(); };
    Paired runs(best_read(streams));
    for (const Kernels* set : runnable_kernels()) {
      runs.add(
          "diff_cast_refresh, " + std::string(set->name),
          [=] { streams->fused(set->diff_cast_refresh); }, restore);
    }
    const Kernels& set = *runnable_kernels().back();
    runs.add(
        "diff_cast", [=, &set] { streams->fused(set.diff_cast); }, restore);
    runs.add(
        "diff_cast_keep, to the tile", [=, &set] { streams->fused_keeping(set); }, restore);
    runs.add(
        "cast a run to the tile, diff", [=, &set] { streams->cast_runs_and_diff(set); }, restore);
    runs.add(
        "cast a run, diff_refresh", [=, &set] { streams->cast_runs_and_refresh(set); }, restore);
    runs.add(
        "cast everything, diff_refresh", [=, &set] { streams->cast_all_and_refresh(set); },
        restore);
    runs.run(options.rounds);
    report_all(report, "cast", density, runs, 3 * streams->bytes());
  }
}

}  // namespace siltstone::bench
