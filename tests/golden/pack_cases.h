// The deltas of the golden packs, made from fixed numbers; make_packs.cc writes them to files.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "siltstone/result.h"

namespace siltstone::test {

struct GoldenFile {
  std::string name;  // with extension
  std::string content;
};

// Packs and one JSON description of what they do to which tensors.
struct GoldenCase {
  std::string name;
  std::vector<GoldenFile> packs;
  Json description;
};

// Packs that every reader of the format must read, each encoded with the codec it is named after.
std::vector<GoldenCase> golden_read_cases();

// Packs as the library chooses to write them: its output must stay equal byte for byte.
std::vector<GoldenCase> golden_write_cases();

// Packs to refuse; the description holds "code" and the tensor they claim to change.
std::vector<GoldenCase> golden_refuse_cases();

}  // namespace siltstone::test
