#include "base/bytes.h"

#include <gtest/gtest.h>

#include <array>

namespace siltstone {
namespace {

TEST(Bytes, LoadsAndStoresLittleEndianUnaligned) {
  std::array<unsigned char, 9> raw = {0xff, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(load_le<uint64_t>(raw.data() + 1), 0x0807060504030201U);
  EXPECT_EQ(load_le<uint16_t>(raw.data() + 1), 0x0201U);
  store_le<uint32_t>(raw.data() + 1, 0xa0b0c0d0U);
  EXPECT_EQ(raw[0], 0xff);
  EXPECT_EQ(raw[1], 0xd0);
  EXPECT_EQ(raw[4], 0xa0);
  EXPECT_EQ(raw[5], 5);
}

TEST(Bytes, CheckedArithmeticSaysWhenItOverflows) {
  uint64_t out = 0;
  EXPECT_TRUE(checked_add(UINT64_MAX - 1, 1, &out));
  EXPECT_EQ(out, UINT64_MAX);
  EXPECT_FALSE(checked_add(UINT64_MAX, 1, &out));
  EXPECT_TRUE(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, &out));
  EXPECT_EQ(out, UINT64_MAX - 0xffffffff);
  EXPECT_FALSE(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32, &out));
}

TEST(Bytes, RoundsUp) {
  EXPECT_EQ(align_up(0, 16), 0U);
  EXPECT_EQ(align_up(1, 16), 16U);
  EXPECT_EQ(align_up(16, 16), 16U);
  EXPECT_EQ(ceil_div(0, 3), 0U);
  EXPECT_EQ(ceil_div(7, 3), 3U);
  EXPECT_EQ(ceil_div(UINT64_MAX, 2), uint64_t{1} << 63);
}

TEST(Hex, WritesLowerCase) {
  EXPECT_EQ(to_hex(as_bytes(std::string_view("\x00\x9f\xff", 3))), "009fff");
  EXPECT_EQ(to_hex(ByteSpan()), "");
  EXPECT_EQ(to_hex(uint64_t{0xabc}), "0000000000000abc");
}

TEST(Hex, ReadsOnlyWhatItWrites) {
  std::array<std::byte, 2> out{};
  ASSERT_TRUE(from_hex("0aF0", out) == false);
  ASSERT_TRUE(from_hex("0af0", out));
  EXPECT_EQ(to_hex(out), "0af0");
  for (const char* bad : {"", "0af", "0af00", "0ag0", " af0", "0AF0", "0x0a"}) {
    EXPECT_FALSE(from_hex(bad, out)) << bad;
  }
  EXPECT_TRUE(from_hex("", MutByteSpan()));
}

TEST(Hex, EveryByteComesBack) {
  for (int value = 0; value < 256; ++value) {
    const std::array<std::byte, 1> in = {static_cast<std::byte>(value)};
    std::array<std::byte, 1> out{};
    ASSERT_TRUE(from_hex(to_hex(in), out));
    EXPECT_EQ(in, out);
  }
}

TEST(FormatBytes, ChoosesTheUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16384.00 PiB");
}

}  // namespace
}  // namespace siltstone
