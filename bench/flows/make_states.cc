// Writes model folders OUT/base and OUT/next whose bf16 words differ as real optimizer steps make
// them differ: the chance of a change halves with every binade of the old weight (saturating at
// one), and a change is one step up or down, rarely more. Deterministic for the same arguments.
//
//   make_states OUT MIB DENSITY      for example: make_states /tmp/states 2048 0.01
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tensor/safetensors.h"

namespace {

constexpr uint64_t kSide = 4096;  // every tensor is kSide x kSide

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

// Roughly normal with deviation 0.02, truncated to bf16: four uniforms out of one 64-bit word.
uint16_t draw_weight(Random& random) {
  const uint64_t bits = random.next();
  int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>((bits >> (16 * i)) & 0xFFFF) - 32768;
  const float weight = static_cast<float>(sum) * (0.02F / 37837.0F);
  uint32_t word;
  std::memcpy(&word, &weight, sizeof word);
  return static_cast<uint16_t>(word >> 16);
}

// Chance of a change per exponent, scaled so that a state with these exponents changes at
// `density`.
std::array<double, 256> change_chances(const std::vector<uint16_t>& sample, double density) {
  std::array<double, 256> share{};
  for (const uint16_t word : sample) share[(word >> 7) & 0xFF] += 1.0 / double(sample.size());
  double low = 0;
  double high = 0x1p260;
  std::array<double, 256> chance{};
  for (int round = 0; round < 400; ++round) {
    const double scale = round < 200 && low == 0 ? high / 2 : (low + high) / 2;
    double expected = 0;
    for (int e = 0; e < 256; ++e) {
      chance[e] = std::min(1.0, std::ldexp(scale, -e));
      expected += share[e] * chance[e];
    }
    (expected < density ? low : high) = scale;
  }
  return chance;
}

uint16_t step(uint16_t word, Random& random) {
  const uint64_t bits = random.next();
  const auto size = static_cast<uint16_t>((bits & 15) == 0 ? 1 + ((bits >> 4) & 7) : 1);
  const uint16_t magnitude = word & 0x7FFF;
  const bool up = (bits >> 32 & 1) != 0 || magnitude < size;
  return static_cast<uint16_t>((word & 0x8000) | (up ? magnitude + size : magnitude - size));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: make_states OUT MIB DENSITY\n");
    return 2;
  }
  const std::filesystem::path out = argv[1];
  const uint64_t tensors = std::max(1ULL, std::strtoull(argv[2], nullptr, 10) >> 5);
  const double density = std::strtod(argv[3], nullptr);
  std::vector<siltstone::TensorInfo> infos;
  for (uint64_t t = 0; t < tensors; ++t) {
    infos.push_back({"layers." + std::to_string(t) + ".weight",
                     siltstone::DType::kBF16,
                     {kSide, kSide},
                     kSide * kSide * 2});
  }
  const std::string prefix = siltstone::make_safetensors_prefix(infos, {{"format", "pt"}}, 8);
  std::array<std::ofstream, 2> files;
  const char* const names[] = {"base", "next"};
  for (int side = 0; side < 2; ++side) {
    std::filesystem::create_directories(out / names[side]);
    files[side].open(out / names[side] / "model.safetensors", std::ios::binary);
    files[side] << prefix;
  }
  std::vector<uint16_t> words(kSide * kSide);
  std::array<double, 256> chance{};
  uint64_t changed = 0;
  Random random(1);
  for (uint64_t t = 0; t < tensors; ++t) {
    for (uint16_t& word : words) word = draw_weight(random);
    if (t == 0) chance = change_chances(words, density);
    const auto bytes = static_cast<std::streamsize>(words.size() * sizeof(uint16_t));
    files[0].write(reinterpret_cast<const char*>(words.data()), bytes);
    for (uint16_t& word : words) {
      if (random.uniform() >= chance[(word >> 7) & 0xFF]) continue;
      word = step(word, random);
      ++changed;
    }
    files[1].write(reinterpret_cast<const char*>(words.data()), bytes);
  }
  const double share = double(changed) / (double(tensors) * kSide * kSide);
  std::printf("%llu tensors of %llu x %llu bf16, %.4f %% changed\n", (unsigned long long)tensors,
              (unsigned long long)kSide, (unsigned long long)kSide, 100 * share);
  return files[0].flush() && files[1].flush() ? 0 : 1;
}
