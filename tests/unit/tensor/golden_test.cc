// The golden files of docs/format/checkpoint.md: tests/golden/make_checkpoint.py writes them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/json.h"
#include "siltstone/checkpoint.h"
#include "tensor/safetensors.h"
#include "tensor/text.h"
#include "unit/base/temp_folder.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& kind) {
  return fs::path(SILTSTONE_TEST_DATA) / "golden" / kind / "checkpoint";
}

std::vector<std::string> names_with(const fs::path& folder, const std::string& suffix) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == suffix) names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(names);
  return names;
}

std::string case_name(const testing::TestParamInfo<std::string>& info) {
  return info.param;
}

class GoldenRead : public testing::TestWithParam<std::string> {};

// The whole tensor, read in two pieces.
std::string bytes_of(const Checkpoint& checkpoint, size_t index) {
  std::string bytes(checkpoint.tensors()[index].size_bytes, '?');
  const auto out = std::as_writable_bytes(std::span(bytes));
  const size_t half = out.size() / 2;
  EXPECT_TRUE(checkpoint.read(index, half, out.subspan(half)));
  EXPECT_TRUE(checkpoint.read(index, 0, out.first(half)));
  return bytes;
}

TEST_P(GoldenRead, HoldsWhatTheDescriptionSays) {
  const fs::path path = golden("read") / (GetParam() + ".safetensors");
  const auto checkpoint = open_checkpoint(path);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const Checkpoint& found = **checkpoint;
  const WeightFile& file = found.files().front();
  const uint64_t data_start = kLengthFieldBytes + file.header.size();

  std::istringstream description(slurp(golden("read") / (GetParam() + ".txt")));
  std::string line;
  ASSERT_TRUE(std::getline(description, line));
  Json metadata = Json::object();
  const auto header = parse_safetensors_header(file.header, file.size_bytes - data_start);
  ASSERT_TRUE(header);
  for (const auto& [key, value] : header->metadata) metadata[key] = value;
  EXPECT_EQ(Json::parse(line.substr(line.find(' '))), metadata);

  std::vector<uint64_t> offsets(found.tensors().size());
  for (const WeightFile::Entry& entry : file.entries) offsets[entry.tensor] = entry.offset_bytes;
  size_t index = 0;
  for (; std::getline(description, line); ++index) {
    ASSERT_LT(index, found.tensors().size());
    const TensorInfo& tensor = found.tensors()[index];
    const std::string bytes = bytes_of(found, index);
    EXPECT_EQ(line, std::string(dtype_info(tensor.dtype).name) + " " + show_shape(tensor.shape) +
                        " " + std::to_string(offsets[index] - data_start) + " " +
                        sha256_hex(as_bytes(bytes)) + " " + tensor.name);
  }
  EXPECT_EQ(index, found.tensors().size());
}

TEST_P(GoldenRead, CanBeWrittenAgainByteForByte) {
  const fs::path path = golden("read") / (GetParam() + ".safetensors");
  const auto checkpoint = open_checkpoint(path);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const WeightFile& file = (*checkpoint)->files().front();
  std::string again(kLengthFieldBytes, '\0');
  store_le<uint64_t>(again.data(), file.header.size());
  again += file.header;
  for (const WeightFile::Entry& entry : file.entries) {
    EXPECT_EQ(entry.offset_bytes, again.size());
    again += bytes_of(**checkpoint, entry.tensor);
  }
  EXPECT_EQ(again, slurp(path));
}

TEST_P(GoldenRead, EveryTruncationIsRefused) {
  const std::string content = slurp(golden("read") / (GetParam() + ".safetensors"));
  const TempFolder folder;
  for (size_t length = 0; length < content.size(); ++length) {
    const auto cut = open_checkpoint(folder.write("a.safetensors", content.substr(0, length)));
    ASSERT_FALSE(cut) << length;
    EXPECT_EQ(cut.error().code, Code::kCorrupt) << cut.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenRead,
                         testing::ValuesIn(names_with(golden("read"), ".safetensors")), case_name);

struct Refusal {
  std::string name;
  std::string code;
  std::string message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

std::vector<Refusal> refusals() {
  std::vector<Refusal> rows;
  std::istringstream table(slurp(golden("refuse") / "expected.tsv"));
  for (Refusal row; std::getline(table, row.name, '\t') && std::getline(table, row.code, '\t') &&
                    std::getline(table, row.message);) {
    rows.push_back(row);
  }
  return rows;
}

class GoldenRefuse : public testing::TestWithParam<Refusal> {};

TEST_P(GoldenRefuse, SaysWhatIsWrong) {
  const fs::path path = golden("refuse") / (GetParam().name + ".safetensors");
  ASSERT_TRUE(fs::exists(path));
  const auto checkpoint = open_checkpoint(path);
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().message, "'" + path.string() + "': " + GetParam().message);
  EXPECT_EQ(code_name(checkpoint.error().code), GetParam().code);
}

std::string refusal_name(const testing::TestParamInfo<Refusal>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenRefuse, testing::ValuesIn(refusals()), refusal_name);

TEST(GoldenRefuseTable, NamesEveryFile) {
  std::vector<std::string> expected;
  for (const Refusal& row : refusals()) expected.push_back(row.name);
  std::ranges::sort(expected);
  EXPECT_EQ(names_with(golden("refuse"), ".safetensors"), expected);
  EXPECT_GE(expected.size(), 80U);
}

struct Write {
  std::string name;
  uint64_t alignment;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<TensorInfo> tensors;
};

TensorInfo tensor(std::string name, DType dtype, std::vector<int64_t> shape) {
  const uint64_t size_bytes = tensor_size_bytes(dtype, shape).value();
  return {std::move(name), dtype, std::move(shape), size_bytes};
}

// The same table as WRITE of make_checkpoint.py.
std::vector<Write> writes() {
  std::vector<TensorInfo> every;
  for (const DTypeInfo& info : all_dtypes()) {
    std::string name(info.name);
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    every.push_back(tensor(name, info.dtype, {2, 4}));
  }
  return {
      {"no_tensors", 8, {}, {}},
      {"format_pt",
       8,
       {{"format", "pt"}},
       {tensor("weight", DType::kF32, {2, 3}), tensor("bias", DType::kF32, {3})}},
      {"metadata_keeps_order", 8, {{"z", "1"}, {"a", "2"}}, {}},
      {"text_escaped",
       8,
       {{"k\n", "\"\\/\b\f\r\t\x01\x7f\xc3\xa9\xf0\x9f\x98\x80"}},
       {tensor("q\"\\\xe6\xbc\xa2", DType::kU8, {1})}},
      {"aligned_64",
       64,
       {},
       {tensor("a", DType::kBF16, {1}), tensor("b", DType::kU8, {0}),
        tensor("c", DType::kI64, {})}},
      {"aligned_4096", 4096, {{"format", "pt"}}, {tensor("a", DType::kF6_E3M2, {4, 2})}},
      {"every_dtype", 16, {}, every},
  };
}

TEST(GoldenWrite, PrefixesHaveExactlyTheseBytes) {
  std::vector<std::string> names;
  for (const Write& write : writes()) {
    names.push_back(write.name);
    const std::string prefix =
        make_safetensors_prefix(write.tensors, write.metadata, write.alignment);
    EXPECT_EQ(prefix, slurp(golden("write") / (write.name + ".prefix"))) << write.name;
    EXPECT_EQ(prefix.size() % write.alignment, 0U) << write.name;
  }
  std::ranges::sort(names);
  EXPECT_EQ(names_with(golden("write"), ".prefix"), names);
}

}  // namespace
}  // namespace siltstone
