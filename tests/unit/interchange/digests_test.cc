// The digests of slime's files, against values that other programs gave.
#include <gtest/gtest.h>

#include "interchange/foreign_files.h"
#include "interchange/slime.h"

namespace siltstone {
namespace {

TEST(Digests, AreThoseOfOtherPrograms) {
  EXPECT_EQ(adler32_hex({}), "00000001");
  EXPECT_EQ(adler32_hex(as_bytes("Wikipedia")), "11e60398");
  EXPECT_EQ(adler32_hex(as_bytes(std::string(100'000, '\xff'))), "149a302c");
  EXPECT_EQ(xxh3_128_hex({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(xxh3_128_hex(as_bytes("abc")), "06b05ab6733a618578af5f94892f3950");
}

TEST(Numbers, HaveSixDigitsAndMoreWhereNeeded) {
  EXPECT_EQ(six_digits(7), "000007");
  EXPECT_EQ(six_digits(1'234'567), "1234567");
  EXPECT_EQ(number_in("step_000007.safetensors", "step_", ".safetensors"), 7);
  EXPECT_EQ(number_in("step_1234567.safetensors", "step_", ".safetensors"), 1'234'567);
  for (const char* name : {"step_7.safetensors", "step_0000007.safetensors", "step_.safetensors",
                           "step_00000x.safetensors", "step_-00007.safetensors", "step_000007",
                           "step_000007.safetensors.tmp", ".step_000007.safetensors",
                           "step_9999999999999999999.safetensors"}) {
    EXPECT_EQ(number_in(name, "step_", ".safetensors"), std::nullopt) << name;
  }
}

TEST(Frames, AreReadPieceByPieceAndNoFurther) {
  std::vector<std::byte> plain(300'000);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i * i >> 3);
  const std::vector<std::byte> frame = *compress_frame(plain);
  FrameReader reader(frame);
  std::vector<std::byte> piece(1'000);
  ASSERT_TRUE(reader.read(piece));
  EXPECT_TRUE(std::equal(piece.begin(), piece.end(), plain.begin()));
  ASSERT_TRUE(reader.skip(200'000));
  EXPECT_FALSE(FrameReader(frame).finish());
  piece.resize(99'000);
  ASSERT_TRUE(reader.read(piece));
  EXPECT_TRUE(std::equal(piece.begin(), piece.end(), plain.begin() + 201'000));
  EXPECT_TRUE(reader.finish());
  EXPECT_FALSE(reader.read(std::span(piece).first(1)));
}

}  // namespace
}  // namespace siltstone
