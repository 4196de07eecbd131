// Sections that a reader must refuse, each wrong in one way and with a checksum that is right.
#pragma once

#include <string>
#include <vector>

#include "siltstone/result.h"
#include "support/section_bytes.h"

namespace siltstone::test {

struct HostileSection {
  std::string name;
  Code code = Code::kCorrupt;
  Bytes bytes;
  // The tensor it claims to belong to; its old bytes are zeros.
  DType dtype = DType::kBF16;
  WordMatrix matrix{100, 1, 2};
};

std::vector<HostileSection> hostile_sections();

}  // namespace siltstone::test
