// What a rank of an expert-parallel engine fetches and how long it stages, against a replica of all
// the weights.
//
//   bench_share [LAYERS] [ONE_IN] [ROUNDS]      1 100 5
//
// Takes 4 GiB of memory a layer. Layers of 128 experts of three bf16 matrices of 1.5 million words,
// and 16 MiB of attention that every rank holds; one word in ONE_IN changes. Both stage the same
// version, one after the other.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/arena.h"
#include "need.h"
#include "paired.h"
#include "siltstone/checkpoint.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"

namespace siltstone::bench {
namespace {

constexpr size_t kExperts = 128;
constexpr uint64_t kRows = 768;
constexpr uint64_t kColumns = 2048;
constexpr uint64_t kMatrixBytes = kRows * kColumns * 2;
constexpr uint64_t kAttentionRows = 4096;
constexpr uint64_t kAttentionBytes = kAttentionRows * kColumns * 2;

struct Tensor {
  std::string name;
  size_t expert;  // kExperts: attention
  std::vector<int64_t> shape;
  MutByteSpan bytes;
};

class Model {
 public:
  explicit Model(size_t layers)
      : memory_(layers * (kAttentionBytes + 3 * kExperts * kMatrixBytes)) {
    auto* words = reinterpret_cast<uint64_t*>(memory_.bytes().data());
    for (uint64_t i = 0; i < memory_.bytes().size() / 8; ++i)
      words[i] = random_() & 0xBFFFBFFFBFFFBFFFU;
    MutByteSpan left = memory_.bytes();
    const auto add = [&](std::string name, size_t expert, uint64_t rows) {
      const uint64_t size_bytes = rows * kColumns * 2;
      tensors.push_back({std::move(name),
                         expert,
                         {static_cast<int64_t>(rows), static_cast<int64_t>(kColumns)},
                         left.first(size_bytes)});
      left = left.subspan(size_bytes);
    };
    for (size_t layer = 0; layer < layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "self_attn.qkv_proj.weight", kExperts, kAttentionRows);
      for (size_t expert = 0; expert < kExperts; ++expert) {
        for (const char* matrix : {"down_proj", "gate_proj", "up_proj"})
          add(prefix + "mlp.experts." + std::to_string(expert) + "." + matrix + ".weight", expert,
              kRows);
      }
    }
  }
  Version publish(Repository& repository, RetainedBase& base) {
    std::vector<TensorView> views;
    for (const Tensor& t : tensors) views.push_back({t.name, DType::kBF16, t.shape, t.bytes, {}});
    PublishOptions options;
    options.retained = &base;
    return need(repository.publish(*need(view_memory(std::move(views), {})), options)).version;
  }
  void step(uint64_t one_in) {
    auto* words = reinterpret_cast<uint16_t*>(memory_.bytes().data());
    const uint64_t total = memory_.bytes().size() / 2;
    for (uint64_t at = random_() % (2 * one_in); at < total; at += 1 + random_() % (2 * one_in - 1))
      words[at] ^= 1;
  }

  std::vector<Tensor> tensors;

 private:
  std::mt19937_64 random_{1};
  Arena memory_;
};

struct Rank {
  const char* what;
  bool (*holds)(size_t expert);
  std::unique_ptr<Replica> replica = {};
  std::vector<std::vector<std::byte>> memory = {};
  std::vector<double> bytes = {};
  std::vector<double> seconds = {};
};

void measure(size_t layers, uint64_t one_in, int rounds) {
  Model model(layers);
  const auto repository = need(Repository::init(std::make_shared<MemoryStore>("mem://bench")));
  RetainedBase base;
  const Version first = model.publish(*repository, base);
  Rank ranks[] = {
      {"all", [](size_t) { return true; }},
      {"a quarter, 32 in a row", [](size_t e) { return e < 32; }},
      {"an eighth, 16 in a row", [](size_t e) { return e >= 16 && e < 32; }},
      {"an eighth, every eighth", [](size_t e) { return e % 8 == 3; }},
  };
  for (Rank& rank : ranks) {
    std::vector<Slot> slots;
    for (const Tensor& tensor : model.tensors) {
      if (tensor.expert != kExperts && !rank.holds(tensor.expert)) continue;
      rank.memory.emplace_back(tensor.bytes.begin(), tensor.bytes.end());
      slots.push_back({tensor.name, rank.memory.back(), {{.columns = tensor.bytes.size() / 2}}});
    }
    rank.replica = need(Replica::adopt_share(*repository, std::move(slots), first));
  }
  for (int round = 0; round < rounds; ++round) {
    model.step(one_in);
    const Version next = model.publish(*repository, base);
    for (Rank& rank : ranks) {
      const auto begin = std::chrono::steady_clock::now();
      StageOptions options;
      options.memory_bytes = uint64_t{2} << 30;
      auto staged = need(rank.replica->stage(*repository, next, options));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      rank.seconds.push_back(took.count());
      rank.bytes.push_back(static_cast<double>(staged->bytes_fetched()));
      const CommitReport report = rank.replica->commit(std::move(staged));
      need(report.status);
    }
  }
  const double all = median(ranks[0].bytes);
  for (const Rank& rank : ranks) {
    std::vector<double> ratios;
    for (size_t i = 0; i < rank.seconds.size(); ++i)
      ratios.push_back(rank.seconds[i] / ranks[0].seconds[i]);
    std::printf("%-24s fetched %6.2f MB, %.3f of all; staged in %.2f of the time\n", rank.what,
                median(rank.bytes) / 1e6, median(rank.bytes) / all, median(ratios));
  }
}

}  // namespace
}  // namespace siltstone::bench

int main(int argc, char** argv) {
  const auto number = [&](int at, long fallback) {
    return argc > at ? std::strtol(argv[at], nullptr, 10) : fallback;
  };
  const long layers = number(1, 1);
  const long one_in = number(2, 100);
  const long rounds = number(3, 5);
  if (layers < 1 || one_in < 1 || rounds < 1) {
    std::fprintf(stderr, "usage: bench_share [LAYERS] [ONE_IN] [ROUNDS]\n");
    return 2;
  }
  siltstone::bench::measure(static_cast<size_t>(layers), static_cast<uint64_t>(one_in),
                            static_cast<int>(rounds));
  return 0;
}
