// What a delta is made of: which codec each tensor has, at what cost per change, and by how many
// steps words of each magnitude moved.
//
// Blocking; call from one thread. Results are plain values.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "siltstone/repository.h"
#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

struct InspectOptions {
  std::string tensors;  // a shell pattern their names match; empty: all
  // Count steps by binade: both states are read, as diff does.
  bool steps = false;
  unsigned threads = 0;
  Progress progress;
};

// Sections of one codec, in a tensor or in all.
struct CodecUse {
  std::string codec;
  uint64_t sections = 0;
  uint64_t section_bytes = 0;  // whole, headers included
  uint64_t elements = 0;       // of the tiles that the sections cover
  uint64_t changed = 0;
};

struct TensorInspection {
  std::string name;
  DType dtype = DType::kU8;
  uint64_t elements = 0;  // of the tensor; of a pack alone, those of the tiles it covers
  uint64_t changed = 0;
  uint64_t section_bytes = 0;
  std::vector<CodecUse> codecs;  // by id
};

// Old words of one dtype whose magnitude lies in the same binade.
struct BinadeSteps {
  DType dtype = DType::kU8;
  // The exponent field; 0 holds zeros and subnormal numbers, the last one infinities and NaNs where
  // the dtype has them. Words without exponents are all counted under 0.
  unsigned exponent = 0;
  // What 2 is raised to; meaningless for words without exponents.
  int power = 0;
  uint64_t elements = 0;
  uint64_t changed = 0;
  // Changed by 1, 2, 3 to 4, 5 to 8, and more steps in the order of the dtype's words.
  static constexpr size_t kSizes = 5;
  std::array<uint64_t, kSizes> by_size{};
};

struct Inspection {
  uint64_t packs = 0;
  uint64_t bytes = 0;         // of the packs
  uint64_t header_bytes = 0;  // of their safetensors headers, length fields included
  uint64_t section_bytes = 0;
  uint64_t elements = 0;  // of the model; of a pack alone, those of the tiles it covers
  uint64_t changed = 0;
  std::vector<CodecUse> codecs;           // by id
  std::vector<TensorInspection> tensors;  // those that changed, by name
  std::vector<BinadeSteps> steps;         // by dtype, largest magnitudes first
};

// The delta of `version`, or its packed anchor, which is proven as it is read. kInvalidArgument if
// the version has none, or no tensor that changed matches; an anchor has no steps.
Result<Inspection> inspect(Repository& repository, const Version& version,
                           const InspectOptions& options);

// One pack in a file of its own; without steps, which need the state before (kInvalidArgument).
// kCorrupt if it is no delta pack.
Result<Inspection> inspect_pack(const std::filesystem::path& path, const InspectOptions& options);

}  // namespace siltstone
