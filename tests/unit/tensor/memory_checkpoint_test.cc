#include <gtest/gtest.h>

#include "base/bytes.h"
#include "siltstone/checkpoint.h"
#include "tensor/safetensors.h"
#include "unit/base/temp_folder.h"

namespace siltstone {
namespace {

TensorView view(std::string name, DType dtype, std::vector<int64_t> shape, std::string_view data) {
  return {std::move(name), dtype, std::move(shape), as_bytes(data), {}};
}

TEST(ViewMemory, DescribesTheFileItWouldBe) {
  const auto checkpoint =
      view_memory({view("b", DType::kU8, {3}, "xyz"), view("a", DType::kF16, {2, 1}, "0123"),
                   view("e", DType::kF4, {0}, "")});
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const Checkpoint& memory = **checkpoint;
  ASSERT_EQ(memory.files().size(), 1U);
  const WeightFile& file = memory.files()[0];
  EXPECT_EQ(file.path, "model.safetensors");
  EXPECT_EQ(file.header.substr(0, 35), R"({"__metadata__":{"format":"pt"},"a")");
  EXPECT_EQ((kLengthFieldBytes + file.header.size()) % 8, 0U);
  EXPECT_TRUE(memory.companions().empty());
  EXPECT_TRUE(memory.skipped().empty());
  EXPECT_TRUE(memory.root().empty());
  EXPECT_TRUE(memory.check_unchanged());
  EXPECT_FALSE(memory.read_companion(0));
  EXPECT_EQ(as_text(memory.resident(1)), "xyz");

  std::string text(kLengthFieldBytes, '\0');
  store_le<uint64_t>(text.data(), file.header.size());
  text += file.header;
  for (const WeightFile::Entry& entry : file.entries) {
    EXPECT_EQ(entry.offset_bytes, text.size());
    std::string bytes(memory.tensors()[entry.tensor].size_bytes, '?');
    ASSERT_TRUE(memory.read(entry.tensor, 0, std::as_writable_bytes(std::span(bytes))));
    text += bytes;
  }
  EXPECT_EQ(text.size(), file.size_bytes);
  EXPECT_TRUE(text.ends_with("0123xyz"));

  const TempFolder folder;
  const auto opened = open_checkpoint(folder.write("model.safetensors", text));
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_TRUE(std::ranges::equal((*opened)->tensors(), memory.tensors()));
  EXPECT_EQ((*opened)->files()[0].header, file.header);
}

TEST(ViewMemory, NoTensorsAreAModelToo) {
  const auto checkpoint = view_memory({});
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ((*checkpoint)->files()[0].entries.size(), 0U);
}

TEST(ViewMemory, ReadsRangesInside) {
  const auto checkpoint = view_memory({view("b", DType::kU8, {3}, "xyz")});
  ASSERT_TRUE(checkpoint);
  std::string bytes(2, '?');
  const auto out = std::as_writable_bytes(std::span(bytes));
  ASSERT_TRUE((*checkpoint)->read(0, 1, out));
  EXPECT_EQ(bytes, "yz");
  const Status outside = (*checkpoint)->read(0, 2, out);
  ASSERT_FALSE(outside);
  EXPECT_EQ(outside.error().code, Code::kInvalidArgument);
}

// 1.0, then a tie that goes to the even word above, then a NaN whose payload lies in the lower
// half.
constexpr std::string_view kMasters("\x00\x00\x80\x3f\x00\x80\x81\x3f\x01\x00\x80\xff", 12);
constexpr std::string_view kRounded("\x80\x3f\x82\x3f\xc0\xff", 6);

TEST(ViewMemory, DescribesMastersAsTheBf16TheyArePublishedAs) {
  const auto checkpoint =
      view_memory({view("a", DType::kF32, {3, 1}, kMasters), view("b", DType::kU8, {3}, "xyz"),
                   view("c", DType::kF32, {0}, "")},
                  {.f32_as_bf16 = true});
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const Checkpoint& memory = **checkpoint;
  EXPECT_EQ(memory.tensors()[0], (TensorInfo{"a", DType::kBF16, {3, 1}, 6}));
  EXPECT_EQ(memory.tensors()[1], (TensorInfo{"b", DType::kU8, {3}, 3}));
  EXPECT_EQ(memory.tensors()[2], (TensorInfo{"c", DType::kBF16, {0}, 0}));
  EXPECT_NE(memory.files()[0].header.find(R"("dtype":"BF16","shape":[3,1],"data_offsets":[0,6])"),
            std::string::npos)
      << memory.files()[0].header;
  EXPECT_TRUE(memory.resident(0).empty());
  EXPECT_EQ(memory.masters(0).data(), as_bytes(kMasters).data());
  EXPECT_EQ(memory.masters(0).size(), 12U);
  EXPECT_EQ(as_text(memory.resident(1)), "xyz");
  EXPECT_TRUE(memory.masters(1).empty());
  EXPECT_TRUE(memory.read(2, 0, {}));
}

TEST(ViewMemory, RoundsTheBytesAskedFor) {
  const auto checkpoint =
      view_memory({view("a", DType::kF32, {3}, kMasters)}, {.f32_as_bf16 = true});
  ASSERT_TRUE(checkpoint);
  for (size_t offset = 0; offset <= kRounded.size(); ++offset) {
    for (size_t length = 0; offset + length <= kRounded.size(); ++length) {
      std::string bytes(length, '?');
      ASSERT_TRUE((*checkpoint)->read(0, offset, std::as_writable_bytes(std::span(bytes))));
      EXPECT_EQ(bytes, kRounded.substr(offset, length)) << offset;
    }
  }
  std::string bytes(7, '?');
  EXPECT_FALSE((*checkpoint)->read(0, 0, std::as_writable_bytes(std::span(bytes))));
}

TEST(ViewMemory, PublishesF32AsItIsUnlessAsked) {
  const auto checkpoint = view_memory({view("a", DType::kF32, {3}, kMasters)});
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ((*checkpoint)->tensors()[0].dtype, DType::kF32);
  EXPECT_EQ((*checkpoint)->resident(0).size(), 12U);
  EXPECT_TRUE((*checkpoint)->masters(0).empty());
}

std::string refusal(std::vector<TensorView> views) {
  const auto checkpoint = view_memory(std::move(views));
  if (checkpoint) return "accepted";
  EXPECT_EQ(checkpoint.error().code, Code::kInvalidArgument);
  return checkpoint.error().message;
}

TEST(ViewMemory, RefusesWhatNoFileCouldHold) {
  EXPECT_EQ(refusal({view("a", DType::kF32, {2}, "1234567")}),
            "tensor 'a' is F32 [2], which needs 8 bytes, but has 7");
  EXPECT_EQ(refusal({view("a", DType::kU8, {1}, "1"), view("b", DType::kU8, {1}, "1"),
                     view("a", DType::kU8, {1}, "1")}),
            "tensor 'a' is given twice");
  const std::string name = " needs a name of 1 to 512 bytes of UTF-8 without control characters";
  EXPECT_EQ(refusal({view("", DType::kU8, {1}, "1")}), "tensor ''" + name);
  EXPECT_EQ(refusal({view("a\n", DType::kU8, {1}, "1")}), "tensor 'a\\x0a'" + name);
  EXPECT_EQ(refusal({view("\xff", DType::kU8, {1}, "1")}), "tensor '\\xff'" + name);
  EXPECT_EQ(refusal({view("__metadata__", DType::kU8, {1}, "1")}),
            "tensor '__metadata__' has the name that headers keep for metadata");
  EXPECT_EQ(refusal({view("a", static_cast<DType>(23), {1}, "1")}),
            "tensor 'a' has the unknown dtype code 23");
  EXPECT_EQ(refusal({view("a", DType::kU8, std::vector<int64_t>(17, 1), "1")}),
            "tensor 'a' has 17 dimensions, at most 16 are allowed");
  const std::string size =
      ": a dimension is negative, or its elements do not fill whole bytes, or they need more than "
      "2^63 - 1";
  EXPECT_EQ(refusal({view("a", DType::kF4, {3}, "12")}), "tensor 'a' cannot be F4 [3]" + size);
  EXPECT_EQ(refusal({view("a", DType::kU8, {-1}, "")}), "tensor 'a' cannot be U8 [-1]" + size);
  TensorView device = view("a", DType::kU8, {1}, "1");
  device.device = {Device::kCuda, 0};
  EXPECT_EQ(refusal({device}), "tensor 'a' does not lie in the memory of the CPU");
}

TEST(ViewMemory, HasTheCompanionsThatItWasGiven) {
  ViewOptions options;
  options.companions = {{"b/c.txt", std::string("x\0y", 3)}, {"a.json", "{}"}};
  const auto memory = view_memory({}, options);
  ASSERT_TRUE(memory) << memory.error().message;
  ASSERT_EQ((*memory)->companions().size(), 2);
  EXPECT_EQ((*memory)->companions()[0].path, "a.json");
  EXPECT_EQ((*memory)->companions()[1].size_bytes, 3);
  EXPECT_EQ(*(*memory)->read_companion(1), std::string("x\0y", 3));
  EXPECT_FALSE((*memory)->read_companion(2));
  options.companions["large"] = std::string((uint64_t{64} << 20) + 1, ' ');
  EXPECT_FALSE(view_memory({}, options));
}

}  // namespace
}  // namespace siltstone
