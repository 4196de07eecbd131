// What an engine waits for: the commit of a replica in memory, against a memcpy of its weights.
//
//   bench_commit [MIB] [ONE_IN] [ROUNDS]      1024 100 7
//
// bf16 weights of which one word in ONE_IN changes, in 200 and in 20,000 tensors that lie whole,
// and in 200 that lie transposed in an engine's parameters. Both sides use as many threads; wall
// time, the memcpy right before each commit.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/parallel.h"
#include "need.h"
#include "paired.h"
#include "siltstone/checkpoint.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"

namespace siltstone::bench {
namespace {

double seconds_of(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Weights of one size in tensors of `columns` columns each.
struct Weights {
  Weights(uint64_t bytes, size_t tensors)
      : rows(static_cast<int64_t>(bytes / tensors / 2 / kColumns)),
        tensor_bytes(static_cast<uint64_t>(rows) * kColumns * 2),
        count(tensors),
        now(tensor_bytes * tensors),
        live(tensor_bytes * tensors) {}

  static constexpr int64_t kColumns = 256;
  static std::string name(size_t tensor) {
    const std::string digits = std::to_string(tensor);
    return "t" + std::string(6 - digits.size(), '0') + digits;
  }
  MutByteSpan bytes(Arena& arena, size_t tensor) const {
    return arena.bytes().subspan(tensor * tensor_bytes, tensor_bytes);
  }
  Version publish(Repository& repository, RetainedBase& base) {
    std::vector<TensorView> views;
    for (size_t t = 0; t < count; ++t)
      views.push_back({name(t), DType::kBF16, {rows, kColumns}, bytes(now, t), {}});
    PublishOptions options;
    options.retained = &base;
    return need(repository.publish(*need(view_memory(std::move(views), {})), options)).version;
  }
  // Moves one word in `one_in` by one.
  void step(uint64_t one_in, std::mt19937_64& random) {
    auto* words = reinterpret_cast<uint16_t*>(now.bytes().data());
    const uint64_t total = now.bytes().size() / 2;
    for (uint64_t at = random() % (2 * one_in); at < total; at += 1 + random() % (2 * one_in - 1))
      words[at] ^= 1;
  }
  std::unique_ptr<Replica> adopt(const Version& at, Repository& repository, bool transposed) {
    std::vector<Slot> slots;
    const auto r = static_cast<uint64_t>(rows);
    for (size_t t = 0; t < count; ++t) {
      SlotTile tile{.columns = r * kColumns};
      if (transposed)
        tile = {.rows = r,
                .columns = kColumns,
                .source_row_stride = kColumns,
                .destination_row_stride = 1,
                .destination_column_stride = r};
      slots.push_back({name(t), bytes(live, t), {tile}});
      fill(bytes(now, t), bytes(live, t), tile);
    }
    return need(Replica::adopt(need(repository.tensors(at)), std::move(slots), at));
  }
  static void fill(ByteSpan from, MutByteSpan to, const SlotTile& tile) {
    for (uint64_t r = 0; r < tile.rows; ++r) {
      for (uint64_t c = 0; c < tile.columns; ++c) {
        std::memcpy(
            to.data() + 2 * (r * tile.destination_row_stride + c * tile.destination_column_stride),
            from.data() + 2 * (r * tile.source_row_stride + c), 2);
      }
    }
  }

  const int64_t rows;
  const uint64_t tensor_bytes;
  const size_t count;
  Arena now;
  Arena live;
};

void copy_in_parallel(ByteSpan from, MutByteSpan to) {
  constexpr uint64_t kPiece = uint64_t{4} << 20;
  (void)parallel_for(ceil_div(from.size(), kPiece), 0, [&](uint64_t i, unsigned) -> Status {
    const uint64_t begin = i * kPiece;
    std::memcpy(to.data() + begin, from.data() + begin, std::min(kPiece, from.size() - begin));
    return {};
  });
}

void measure(const char* what, uint64_t bytes, size_t tensors, bool transposed, uint64_t one_in,
             int rounds) {
  Weights weights(bytes, tensors);
  std::mt19937_64 random(1);
  auto* words = reinterpret_cast<uint64_t*>(weights.now.bytes().data());
  for (uint64_t i = 0; i < weights.now.bytes().size() / 8; ++i)
    words[i] = random() & 0xBFFFBFFFBFFFBFFFU;
  const auto repository = need(Repository::init(std::make_shared<MemoryStore>("mem://bench")));
  RetainedBase base;
  const Version first = weights.publish(*repository, base);
  const auto replica = weights.adopt(first, *repository, transposed);
  std::vector<double> ratios;
  std::vector<double> commits;
  uint64_t changed = 0;
  Arena copy(weights.now.bytes().size());
  for (int round = 0; round <= rounds; ++round) {
    weights.step(one_in, random);
    const Version next = weights.publish(*repository, base);
    StageOptions options;
    options.memory_bytes = uint64_t{4} << 30;
    auto staged = need(replica->stage(*repository, next, options));
    changed = staged->changed_elements();
    const double yardstick =
        seconds_of([&] { copy_in_parallel(weights.live.bytes(), copy.bytes()); });
    const CommitReport report = replica->commit(std::move(staged));
    need(report.status);
    if (round == 0) continue;
    commits.push_back(report.seconds);
    ratios.push_back(report.seconds / yardstick);
  }
  std::printf("%-34s %10llu words change: commit %6.1f ms, %.2f of a memcpy\n", what,
              static_cast<unsigned long long>(changed), median(commits) * 1e3, median(ratios));
}

}  // namespace
}  // namespace siltstone::bench

int main(int argc, char** argv) {
  using siltstone::bench::measure;
  const uint64_t mib = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1024;
  const uint64_t one_in = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 7;
  measure("200 tensors", mib << 20, 200, false, one_in, rounds);
  measure("20,000 tensors", mib << 20, 20'000, false, one_in, rounds);
  measure("200 tensors, each transposed", mib << 20, 200, true, one_in, rounds);
}
