// Encoded sizes of synthetic states must not grow: sizes.csv holds what they were.
//
// The states follow the law that trained weights showed: every binade of the old weight contributes
// the same number of changes until it saturates, nearly all by one step, and larger steps only
// where the steps are smaller than the update. All of it is integer arithmetic, so every machine
// makes the same states. Rewrite the table, after looking at why it changed, with
//   SILTSTONE_WRITE_SIZES=tests/regression/sizes.csv regression_codec_sizes_test
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <map>
#include <sstream>
#include <string>

#include "delta/section.h"
#include "support/plain_change.h"
#include "support/random_state.h"

namespace siltstone {
namespace {

using test::PlainChange;
using test::Random;

// Weights in units of 2^-24: the sum of twelve uniform numbers, which is close to normal, scaled so
// that most are near 2^-6.
int64_t weight(Random* random) {
  int64_t sum = 0;
  for (int i = 0; i < 12; ++i) sum += static_cast<int64_t>(random->next() >> 44);
  return (sum - 12 * (int64_t{1} << 19)) / 4;
}

// The BF16 or F16 pattern of value * 2^-24, truncated.
uint16_t float_bits(int64_t value, int mantissa_bits, int bias) {
  const uint16_t sign = value < 0 ? uint16_t{0x8000} : uint16_t{0};
  const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
  if (magnitude == 0) return sign;
  const int octave = static_cast<int>(std::bit_width(magnitude)) - 1;
  const uint64_t mantissa = octave >= mantissa_bits ? magnitude >> (octave - mantissa_bits)
                                                    : magnitude << (mantissa_bits - octave);
  const int exponent = octave - 24 + bias;
  if (exponent <= 0) return sign;
  return static_cast<uint16_t>(sign | static_cast<uint64_t>(exponent) << mantissa_bits |
                               (mantissa & ((uint64_t{1} << mantissa_bits) - 1)));
}

struct State {
  const char* name;
  DType dtype;
  uint64_t elements;
  uint64_t update;  // size of the update of a weight, in units of 2^-40
};

// One update per weight, uniform in [-update, update]; the master weight stands anywhere inside the
// rounding cell of its word, so a step happens with probability |update| / step. The update before
// was much the same, as momentum makes it.
PlainChange make_state(const State& state) {
  Random random(state.elements + state.update);
  Random past(state.update);
  std::vector<std::byte> old_words(2 * state.elements);
  std::vector<std::byte> new_words(2 * state.elements);
  std::vector<std::byte> earlier_words(2 * state.elements);
  const bool half = state.dtype == DType::kF16;
  const int mantissa_bits = half ? 10 : 7;
  const int bias = half ? 15 : 127;
  for (uint64_t i = 0; i < state.elements; ++i) {
    const int64_t value = weight(&random);
    const uint16_t old_word = float_bits(value, mantissa_bits, bias);
    const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
    const int octave = static_cast<int>(std::bit_width(magnitude));
    // Size of a step at this weight in units of 2^-40.
    const int64_t step = int64_t{1} << std::max(octave - 1 + 16 - mantissa_bits, 0);
    const auto span = static_cast<int64_t>(2 * state.update + 1);
    const int64_t moved = static_cast<int64_t>(random.below(static_cast<uint64_t>(span))) -
                          static_cast<int64_t>(state.update);
    const auto place = static_cast<int64_t>(random.below(static_cast<uint64_t>(step)));
    const auto word_at = [&](int64_t target) {
      const int64_t steps = target >= 0 ? target / step : -((step - 1 - target) / step);
      return static_cast<uint16_t>(old_word + steps);
    };
    const int64_t before = moved * 7 / 8 +
                           static_cast<int64_t>(past.below(static_cast<uint64_t>(span / 4 + 1))) -
                           span / 8;
    store_le(old_words.data() + 2 * i, old_word);
    store_le(new_words.data() + 2 * i, word_at(place + moved));
    store_le(earlier_words.data() + 2 * i, word_at(place - before));
  }
  PlainChange change(state.dtype, kDefaultLog2Block, std::move(old_words), std::move(new_words));
  change.earlier_words = std::move(earlier_words);
  return change;
}

constexpr State kStates[] = {
    {"bf16_tiny", DType::kBF16, 384, 2'000'000},
    {"bf16_small", DType::kBF16, 150'000, 400'000},
    {"bf16_0.1_percent", DType::kBF16, 1'500'000, 25'000},
    {"bf16_1_percent", DType::kBF16, 1'500'000, 380'000},
    {"bf16_5_percent", DType::kBF16, 1'500'000, 2'600'000},
    {"bf16_30_percent", DType::kBF16, 600'000, 26'000'000},
    {"f16_5_percent", DType::kF16, 600'000, 320'000},
};

struct Row {
  uint64_t elements = 0;
  uint64_t changed = 0;
  uint64_t section_bytes = 0;
};
using Table = std::map<std::string, Row>;

Table measure() {
  Table table;
  for (const State& state : kStates) {
    const PlainChange change = make_state(state);
    for (const Codec* codec : all_codecs()) {
      std::vector<std::byte> section;
      const Status status = append_section(change.view_with_past(), {0, change.elements(), 0, 1},
                                           {}, {}, codec, &section);
      EXPECT_TRUE(status);
      table[std::string(state.name) + "," + std::string(codec->name())] = {
          change.elements(), change.positions.size(), section.size()};
    }
  }
  return table;
}

void write_table(const Table& table, const std::string& path) {
  std::ofstream out(path);
  out << "state,codec,elements,changed,section_bytes,bits_per_changed_element\n";
  for (const auto& [name, row] : table) {
    const double bits =
        8.0 * static_cast<double>(row.section_bytes) / static_cast<double>(row.changed);
    out << name << ',' << row.elements << ',' << row.changed << ',' << row.section_bytes << ','
        << std::fixed << std::setprecision(3) << bits << '\n';
  }
}

Table read_table() {
  Table table;
  std::ifstream in(std::string(SILTSTONE_TEST_DATA) + "/regression/sizes.csv");
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string state;
    std::string codec;
    Row row;
    char comma = 0;
    std::getline(fields, state, ',');
    std::getline(fields, codec, ',');
    fields >> row.elements >> comma >> row.changed >> comma >> row.section_bytes;
    table[state + "," + codec] = row;
  }
  return table;
}

TEST(CodecSizes, StayWhereTheyWere) {
  const Table found = measure();
  if (const char* path = std::getenv("SILTSTONE_WRITE_SIZES")) write_table(found, path);
  const Table expected = read_table();
  ASSERT_EQ(expected.size(), std::size(kStates) * all_codecs().size());
  for (const auto& [name, row] : found) {
    SCOPED_TRACE(name);
    const auto before = expected.find(name);
    ASSERT_NE(before, expected.end());
    EXPECT_EQ(row.elements, before->second.elements);
    EXPECT_EQ(row.changed, before->second.changed);
    // Half a per cent for another version of zstd.
    const auto bytes = static_cast<double>(before->second.section_bytes);
    EXPECT_LE(static_cast<double>(row.section_bytes), 1.005 * bytes);
    EXPECT_GE(static_cast<double>(row.section_bytes), 0.97 * bytes)
        << "smaller: rewrite sizes.csv so that it stays so";
  }
}

TEST(CodecSizes, StepStaysUnderItsPromiseAtOnePercent) {
  const Table found = measure();
  const Row& row = found.at("bf16_1_percent,step");
  EXPECT_GT(row.changed, row.elements / 150);
  EXPECT_LT(8.0 * static_cast<double>(row.section_bytes), 11.5 * static_cast<double>(row.changed));
}

}  // namespace
}  // namespace siltstone
