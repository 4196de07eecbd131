#include "tensor/text.h"

#include <gtest/gtest.h>

namespace siltstone {
namespace {

TEST(Utf8, AcceptsEveryLength) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("a\x7f\xc2\x80\xdf\xbf"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"), std::nullopt);
}

TEST(Utf8, FindsWhatIsNotWellFormed) {
  for (const char* bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc2", "\xe1\x80",
        "\xf1\x80\x80", "\xc2\x41", "\xe1\x80\x41", "\xf1\x80\x80\x41"}) {
    EXPECT_EQ(find_invalid_utf8("ab" + std::string(bad)), 2U) << quote(bad);
  }
}

TEST(CleanText, RefusesControlCharacters) {
  EXPECT_TRUE(is_clean_text("model.layers.0 \xc3\xa4\xc2\xa0"));
  for (const std::string& bad :
       {std::string("\0", 1), std::string("\n"), std::string("\x1f"), std::string("\x7f"),
        std::string("\xc2\x80"), std::string("\xc2\x9f"), std::string("\xff")}) {
    EXPECT_FALSE(is_clean_text("a" + bad)) << quote(bad);
  }
}

TEST(CleanComponent, IsOneName) {
  EXPECT_TRUE(is_clean_component("config.json"));
  EXPECT_TRUE(is_clean_component("..."));
  for (const char* bad : {"", ".", "..", "a/b", "/", "a\n", "\xff"}) {
    EXPECT_FALSE(is_clean_component(bad)) << quote(bad);
  }
}

TEST(Quote, EscapesAndCuts) {
  EXPECT_EQ(quote("a b"), "'a b'");
  EXPECT_EQ(quote("\xc3\xa4\n\x1b[0m\xc2\x9b\xff"), "'\xc3\xa4\\x0a\\x1b[0m\\xc2\\x9b\\xff'");
  EXPECT_EQ(quote(std::string(512, 'x')), "'" + std::string(512, 'x') + "'");
  EXPECT_EQ(quote(std::string(513, 'x')), "'" + std::string(512, 'x') + "...'");
}

TEST(ShowShape, WritesJson) {
  EXPECT_EQ(show_shape({}), "[]");
  const std::vector<int64_t> shape = {2, 0, INT64_MAX};
  EXPECT_EQ(show_shape(shape), "[2,0,9223372036854775807]");
}

}  // namespace
}  // namespace siltstone
