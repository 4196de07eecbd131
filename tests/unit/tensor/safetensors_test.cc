#include "tensor/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "base/bytes.h"

namespace siltstone {
namespace {

std::string_view header_of(const std::string& prefix) {
  return std::string_view(prefix).substr(kLengthFieldBytes);
}

// Random tensors of every dtype, shape and kind of name, by seed.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t bound) {
    return std::uniform_int_distribution<uint64_t>(0, bound - 1)(random_);
  }

  std::string text(size_t least) {
    static constexpr std::array<std::string_view, 8> kPieces = {
        "layers.", "0", "\"", "\\", "\xc3\xa4", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80", "/../"};
    std::string out;
    for (size_t i = least + below(6); i > 0; --i) out += kPieces[below(kPieces.size())];
    return out;
  }

  TensorInfo tensor(size_t number) {
    while (true) {
      TensorInfo info;
      info.name = text(0) + std::to_string(number);
      info.dtype = all_dtypes()[below(all_dtypes().size())].dtype;
      for (uint64_t rank = below(5); rank > 0; --rank) {
        info.shape.push_back(static_cast<int64_t>(below(9)));
      }
      if (below(20) == 0) info.shape.push_back(int64_t{1} << 33);
      const auto size_bytes = tensor_size_bytes(info.dtype, info.shape);
      if (!size_bytes) continue;
      info.size_bytes = *size_bytes;
      return info;
    }
  }

 private:
  std::mt19937_64 random_;
};

TEST(SafetensorsPrefix, ReadsBackWhatWasWritten) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Generator generator(seed);
    std::vector<TensorInfo> tensors;
    uint64_t data_bytes = 0;
    for (uint64_t count = generator.below(12); count > 0; --count) {
      tensors.push_back(generator.tensor(tensors.size()));
      data_bytes += tensors.back().size_bytes;
    }
    std::vector<std::pair<std::string, std::string>> metadata;
    for (uint64_t count = generator.below(3); count > 0; --count) {
      metadata.emplace_back(generator.text(0) + std::to_string(count),
                            generator.text(0) + "\n\x1f");
    }
    const uint64_t alignment = uint64_t{1} << generator.below(13);
    const std::string prefix = make_safetensors_prefix(tensors, metadata, alignment);
    ASSERT_EQ(prefix.size() % alignment, 0U);
    const auto length = parse_length_field(as_bytes(prefix), prefix.size() + data_bytes);
    ASSERT_TRUE(length) << length.error().message;
    ASSERT_EQ(*length + kLengthFieldBytes, prefix.size());

    const auto header = parse_safetensors_header(header_of(prefix), data_bytes);
    ASSERT_TRUE(header) << "seed " << seed << ": " << header.error().message << "\n" << prefix;
    EXPECT_EQ(header->metadata, metadata);
    EXPECT_EQ(header->data_bytes, data_bytes);
    // Back to back in the given order, but an empty tensor may stand before one of its neighbours.
    ASSERT_EQ(header->entries.size(), tensors.size());
    uint64_t offset = 0;
    for (const SafetensorsEntry& entry : header->entries) {
      EXPECT_EQ(entry.offset_bytes, offset);
      offset += entry.info.size_bytes;
      EXPECT_NE(std::ranges::find(tensors, entry.info), tensors.end()) << "seed " << seed;
    }
    EXPECT_EQ(offset, data_bytes);
  }
}

TEST(SafetensorsHeader, AnyByteChangedIsReadOrRefusedWithAReason) {
  const std::vector<TensorInfo> tensors = {{"a", DType::kBF16, {2, 3}, 12},
                                           {"b", DType::kF4, {4}, 2}};
  const std::string prefix = make_safetensors_prefix(tensors, {{"format", "pt"}}, 8);
  const std::string header(header_of(prefix));
  size_t refused = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string damaged = header;
      damaged[i] = static_cast<char>(value);
      const auto parsed = parse_safetensors_header(damaged, 14);
      if (parsed) continue;
      ++refused;
      EXPECT_FALSE(parsed.error().message.empty());
      EXPECT_TRUE(parsed.error().code == Code::kCorrupt ||
                  parsed.error().code == Code::kUnsupported);
    }
  }
  EXPECT_GT(refused, header.size() * 200);
}

TEST(SafetensorsHeader, EntriesComeByOffset) {
  const auto header =
      parse_safetensors_header(R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},)"
                               R"("e2":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
                               R"("e1":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
                               R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                               4);
  ASSERT_TRUE(header) << header.error().message;
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : header->entries) names.push_back(entry.info.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "e2", "e1", "z"}));
}

TEST(SafetensorsHeader, HoldsTheBoundOfItsLength) {
  std::string text = "{}";
  text.resize(kMaxHeaderBytes, ' ');
  EXPECT_TRUE(parse_safetensors_header(text, 0));
  text.push_back(' ');
  const auto header = parse_safetensors_header(text, 0);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().message,
            "the header has 100000001 bytes, at most 100000000 are allowed");
}

TEST(SafetensorsHeader, HoldsTheBoundOfMetadata) {
  std::string text = R"({"__metadata__":{"k":"")";
  for (size_t i = 1; i < kMaxMetadataEntries; ++i) text += ",\"" + std::to_string(i) + "\":\"\"";
  EXPECT_TRUE(parse_safetensors_header(text + "}}", 0));
  const auto header = parse_safetensors_header(text + ",\"x\":\"\"}}", 0);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().message, "'__metadata__' has more than 65536 entries");
}

TEST(SafetensorsHeader, ManyTensors) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 100'000; ++i) tensors.push_back({std::to_string(i), DType::kF32, {1}, 4});
  const std::string prefix = make_safetensors_prefix(tensors, {}, 8);
  const auto header = parse_safetensors_header(header_of(prefix), 400'000);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->entries.size(), 100'000U);
  EXPECT_EQ(header->entries.back().offset_bytes, 399'996U);
}

}  // namespace
}  // namespace siltstone
