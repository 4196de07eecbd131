// How a codec is chosen: within what may be spent, and never to a section larger than raw's.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "delta/section.h"
#include "support/random_state.h"

namespace siltstone {
namespace {

using test::Pattern;
using test::PlainChange;
using test::Where;

struct Chosen {
  uint64_t bytes = 0;
  std::string codec;
};

Chosen code(const PlainChange& change, Effort effort, const Codec* forced = nullptr) {
  TileChange view = change.view();
  view.effort = effort;
  std::vector<std::byte> section;
  const Status done = append_section(view, {0, view.elements, 0, 1}, {}, {}, forced, &section);
  EXPECT_TRUE(done);
  const auto header = parse_section_header(section);
  EXPECT_TRUE(header);
  return {section.size(), std::string(find_codec(header->codec)->name())};
}

TEST(Effort, NoSectionIsLargerThanRaw) {
  uint64_t seed = 1;
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF8_E4M3, DType::kI64, DType::kU8}) {
    for (const Pattern pattern : test::kPatterns) {
      for (const uint64_t elements :
           {uint64_t{1}, uint64_t{300}, uint64_t{70'000}, uint64_t{300'000}}) {
        for (const uint32_t per_million : {10U, 10'000U, 300'000U, 1'000'000U}) {
          const PlainChange change = test::make_change(
              dtype, elements, kDefaultLog2Block, {Where::kRate, per_million}, pattern, seed++);
          if (change.positions.empty()) continue;
          SCOPED_TRACE(std::string(dtype_info(dtype).name) + ", " + std::to_string(elements) +
                       " elements, " + std::to_string(change.positions.size()) + " changes");
          const uint64_t raw = code(change, Effort::kDefault, find_codec("raw")).bytes;
          const Chosen fast = code(change, Effort::kFast);
          const Chosen normal = code(change, Effort::kDefault);
          const Chosen most = code(change, Effort::kMax);
          EXPECT_LE(fast.bytes, raw);
          EXPECT_LE(normal.bytes, raw);
          EXPECT_LE(most.bytes, normal.bytes);
          EXPECT_NE(fast.codec, "class");
        }
      }
    }
  }
}

}  // namespace
}  // namespace siltstone
