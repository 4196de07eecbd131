// Speed of the diff and digest kernels as a share of a plain read in the same rounds, and what it
// costs to bring the base up to date in each of the ways that survive a failed publish.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "delta/diff.h"
#include "delta/grid.h"
#include "delta/kernels/kernels.h"
#include "kernels/cast_bench.h"
#include "kernels/reads.h"
#include "kernels/report.h"

namespace siltstone::bench {
namespace {

constexpr size_t kWord = 2;  // bf16
constexpr size_t kLog2Word = 1;
constexpr size_t kRunBytes = kRunElements * kWord;
constexpr size_t kEverything = SIZE_MAX;

volatile uint64_t g_sink;

// Two versions of one long bf16 tensor, and room for the list of their differences.
class Streams {
 public:
  explicit Streams(size_t bytes)
      : bytes_(bytes), next_(map_huge(2 * bytes + kSkewBytes)), base_(next_ + bytes + kSkewBytes) {
    std::mt19937_64 random(1);
    for (size_t i = 0; i < bytes; i += 8) store_le<uint64_t>(next_ + i, random());
    std::memcpy(base_, next_, bytes);
  }

  // Makes a uniformly random share of the words differ, in one bit each.
  void set_density(double density) {
    std::memcpy(base_, next_, bytes_);
    changed_.clear();
    std::mt19937_64 random(2);
    std::uniform_real_distribution<double> uniform(0, 1);
    const double scale = 1 / std::log1p(-density);
    const auto words = static_cast<double>(bytes_ / kWord);
    for (double at = -1;;) {
      at += 1 + std::floor(std::log1p(-uniform(random)) * scale);
      if (at >= words) break;
      changed_.push_back(static_cast<uint32_t>(at));
    }
    const size_t room = changed_.size() + kRunElements + kDiffSlack;
    if (positions_.size() < room) {
      positions_.assign(room, 1);
      words_.assign(room * kWord, std::byte{1});
      old_words_ = words_;
    }
    restore_base();
  }

  void restore_base() {
    for (const uint32_t i : changed_) {
      std::byte* word = base_ + size_t{i} * kWord;
      store_le<uint16_t>(word, load_le<uint16_t>(next_ + size_t{i} * kWord) ^ 1);
    }
  }

  // Runs the kernel over the stream. The list of every `list_bytes` of it takes the place of the
  // one before, as a tile's does in publish; kEverything lets the list of the whole stream pile up.
  template <class Kernel>
  void diff(Kernel kernel, size_t list_bytes) {
    size_t total = 0;
    size_t count = 0;
    run_ends_.clear();
    for (size_t at = 0; at < bytes_; at += kRunBytes) {
      if (at % list_bytes == 0) {
        total += count;
        count = 0;
      }
      count += kernel(next_ + at, base_ + at, kRunElements, positions_.data() + count,
                      words_.data() + count * kWord);
      run_ends_.push_back(count);
    }
    check(total + count);
  }

  // Writes the kept list's words, new or saved old ones, into the base.
  void scatter(const std::vector<std::byte>& words) {
    size_t i = 0;
    for (size_t run = 0; run < run_ends_.size(); ++run) {
      scatter_run(base_ + run * kRunBytes, &i, run_ends_[run], words);
    }
  }

  // Refreshes run by run, while a run is in cache, and saves the words it overwrites.
  void diff_saving_old(Kernels::Diff kernel) {
    size_t count = 0;
    run_ends_.clear();
    for (size_t at = 0; at < bytes_; at += kRunBytes) {
      std::byte* base = base_ + at;
      const size_t end = count + kernel(next_ + at, base, kRunElements, positions_.data() + count,
                                        words_.data() + count * kWord);
      for (size_t i = count; i < end; ++i) {
        const std::byte* word = base + positions_[i] * kWord;
        store_le(old_words_.data() + i * kWord, load_le<uint16_t>(word));
      }
      scatter_run(base, &count, end, words_);
      run_ends_.push_back(count);
    }
    check(count);
  }

  size_t bytes() const { return bytes_; }
  const std::byte* next() const { return next_; }
  const std::byte* base() const { return base_; }
  void copy_base() { std::memcpy(base_, next_, bytes_); }
  const std::vector<std::byte>& new_words() const { return words_; }
  const std::vector<std::byte>& old_words() const { return old_words_; }

 private:
  void scatter_run(std::byte* base, size_t* i, size_t end, const std::vector<std::byte>& words) {
    for (; *i < end; ++*i) {
      store_le(base + positions_[*i] * kWord, load_le<uint16_t>(words.data() + *i * kWord));
    }
  }

  void check(size_t count) const {
    if (count == changed_.size()) return;
    std::fprintf(stderr, "bench_kernels: a kernel found %zu changes of %zu\n", count,
                 changed_.size());
    std::exit(1);
  }

  size_t bytes_;
  std::byte* next_;
  std::byte* base_;
  std::vector<uint32_t> changed_;
  std::vector<uint16_t> positions_;
  std::vector<std::byte> words_;
  std::vector<std::byte> old_words_;
  std::vector<size_t> run_ends_;
};

// The fastest of the read loops over one stream or two.
std::function<void()> best_read(const Streams* streams, bool two) {
  std::vector<std::function<void()>> reads;
  for (const ReadLoop& loop : read_loops()) {
    reads.push_back([streams, two, &loop] {
      g_sink = two ? loop.two_streams(streams->next(), streams->base(), streams->bytes())
                   : loop.one_stream(streams->next(), streams->bytes());
    });
  }
  return fastest(reads);
}

void bench_refresh(Streams* streams, const Options& options, Report* report) {
  for (const double density : {0.001, 0.01, 0.05, 0.1}) {
    streams->set_density(density);
    Paired runs(best_read(streams, true));
    for (const Kernels* set : runnable_kernels()) {
      runs.add(
          "diff_refresh, " + std::string(set->name),
          [=] { streams->diff(set->diff_refresh[kLog2Word], kTileBytes); },
          [=] { streams->restore_base(); });
    }
    runs.run(options.rounds);
    report_all(report, "refresh", density, runs, 2 * streams->bytes());
  }
}

void bench_digest(const Streams* streams, const Options& options, Report* report) {
  Paired runs(best_read(streams, false));
  for (const Kernels* set : runnable_kernels()) {
    runs.add("digest, " + std::string(set->name),
             [=] { g_sink = set->digest(streams->next(), streams->bytes() / 8, 0).a; });
  }
  runs.run(options.rounds);
  report_all(report, "digest", 0, runs, streams->bytes());
}

// The share of the list in the cost: a shorter one stays in a nearer cache.
void bench_list(Streams* streams, const Options& options, Report* report) {
  const Kernels& set = *runnable_kernels().back();
  for (const double density : {0.05, 0.1}) {
    streams->set_density(density);
    Paired runs(best_read(streams, true));
    for (const size_t list_bytes :
         {size_t{32} << 20, size_t{8} << 20, size_t{2} << 20, kRunBytes}) {
      runs.add(
          "one list per " + format_bytes(list_bytes),
          [=, &set] { streams->diff(set.diff_refresh[kLog2Word], list_bytes); },
          [=] { streams->restore_base(); });
    }
    runs.run(options.rounds);
    report_all(report, "list", density, runs, 2 * streams->bytes());
  }
}

// Ways to have the base hold the new version after a commit and the old one after a failure, and
// the fused pass, which cannot go back.
void bench_promote(Streams* streams, const Options& options, Report* report) {
  constexpr double kDensity = 0.01;
  streams->set_density(kDensity);
  const Kernels& set = *runnable_kernels().back();
  const auto restore = [=] { streams->restore_base(); };
  const auto diff = [=, &set] { streams->diff(set.diff[kLog2Word], kEverything); };
  const auto fused = [=, &set] { streams->diff(set.diff_refresh[kLog2Word], kEverything); };
  const auto saving = [=, &set] { streams->diff_saving_old(set.diff[kLog2Word]); };
  const auto diff_and_list = [=] {
    diff();
    streams->scatter(streams->new_words());
  };
  const auto diff_and_fused = [=] {
    diff();
    fused();
  };
  const auto diff_and_copy = [=] {
    diff();
    streams->copy_base();
  };
  const auto saving_and_undo = [=] {
    saving();
    streams->scatter(streams->old_words());
  };
  Paired runs(best_read(streams, true));
  runs.add("fused pass", fused, restore);
  runs.add("diff (publish fails)", diff, restore);
  runs.add("diff, scatter the list", diff_and_list, restore);
  runs.add("diff, fused pass", diff_and_fused, restore);
  runs.add("diff, copy", diff_and_copy, restore);
  runs.add("refresh, save old words", saving, restore);
  runs.add("the same, undo (publish fails)", saving_and_undo, restore);
  runs.run(options.rounds);
  report_all(report, "promote", kDensity, runs, 2 * streams->bytes());
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--json") {
      options->json = true;
    } else if (arg == "--mib" && i + 1 < argc) {
      options->mib = std::strtoul(argv[++i], nullptr, 10);
    } else if (arg == "--rounds" && i + 1 < argc) {
      options->rounds = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    } else if (arg == "--only" && i + 1 < argc) {
      if (std::string_view(argv[++i]) != "cast") return false;
      options->only_cast = true;
    } else {
      return false;
    }
  }
  return options->mib > 0 && options->mib <= 4096 && options->rounds > 0;
}

}  // namespace
}  // namespace siltstone::bench

int main(int argc, char** argv) {
  using namespace siltstone::bench;
  Options options;
  if (!parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: bench_kernels [--mib 1..4096] [--rounds N] [--only cast] [--json]\n");
    return 2;
  }
  Report report(options.json);
  bench_cast(options, &report);
  if (options.only_cast) return 0;
  Streams streams(options.mib << 20);
  bench_refresh(&streams, options, &report);
  bench_list(&streams, options, &report);
  bench_digest(&streams, options, &report);
  bench_promote(&streams, options, &report);
}
