#include "base/json.h"

#include <gtest/gtest.h>

namespace siltstone {
namespace {

std::string refusal(std::string_view text, JsonLimits limits = {}) {
  const auto json = parse_json(text, limits);
  if (json) return "accepted";
  EXPECT_EQ(json.error().code, Code::kCorrupt);
  return json.error().message;
}

TEST(ParseJson, ReadsOneValue) {
  const auto json = parse_json(R"( {"b":[1,2.5,null],"a":"\u00e4"} )");
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(json->dump(), "{\"a\":\"\xc3\xa4\",\"b\":[1,2.5,null]}");
}

TEST(ParseJson, RefusesWhatIsNotJson) {
  for (const char* bad :
       {"", "{", "{}{}", "{} x", "{'a':1}", "[1,]", "{\"a\":1,}", "nul", "\"\n\"", "\"\xff\"",
        "\"\xc0\xaf\"", "\"\\ud800\"", "NaN", "1e999", "01", "/**/1"}) {
    EXPECT_NE(refusal(bad), "accepted") << bad;
  }
}

TEST(ParseJson, RefusesANulByte) {
  EXPECT_EQ(refusal(std::string_view("{}\0{", 4)), "JSON text has a NUL byte at byte 2");
  EXPECT_EQ(refusal(std::string_view("\0", 1)), "JSON text has a NUL byte at byte 0");
}

TEST(ParseJson, RefusesKeysThatStandTwice) {
  EXPECT_EQ(refusal(R"({"a":1,"b":2,"a":1})"), "JSON: key 'a' stands twice in one object");
  EXPECT_EQ(refusal(R"({"x":[{"a":1,"\u0061":2}]})"), "JSON: key 'a' stands twice in one object");
  EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":{"a":[{"a":2},{"a":3}]}})"));
}

TEST(ParseJson, HoldsItsDepth) {
  EXPECT_TRUE(parse_json("[[1]]", {64, 2}));
  EXPECT_EQ(refusal("[[[1]]]", {64, 2}), "JSON: nested too deeply");
  EXPECT_EQ(refusal(R"([{"a":{}}])", {64, 2}), "JSON: nested too deeply");
  EXPECT_EQ(refusal(std::string(30'000, '[') + std::string(30'000, ']')),
            "JSON: nested too deeply");
  EXPECT_TRUE(parse_json("[[[[[[[[]]]]]]]]"));
  EXPECT_EQ(refusal("[[[[[[[[[]]]]]]]]]"), "JSON: nested too deeply");
}

TEST(ParseJson, HoldsItsBytes) {
  EXPECT_TRUE(parse_json("[]  ", {4, 8}));
  EXPECT_EQ(refusal("[]   ", {4, 8}), "JSON text has 5 bytes, at most 4 are allowed");
}

TEST(JsonMembers, HaveTheTypeAskedFor) {
  const auto json =
      parse_json(R"({"s":"x","u":18446744073709551615,"n":-1,"f":1.0,"a":[],"o":{}})");
  ASSERT_TRUE(json);
  EXPECT_EQ(*json_string(*json, "s"), "x");
  EXPECT_EQ(*json_uint(*json, "u"), UINT64_MAX);
  EXPECT_TRUE((*json_array(*json, "a"))->is_array());
  EXPECT_TRUE((*json_object(*json, "o"))->is_object());
  for (const char* key : {"u", "n", "f", "a", "o", "absent"}) EXPECT_FALSE(json_string(*json, key));
  for (const char* key : {"s", "n", "f", "a", "o", "absent"}) EXPECT_FALSE(json_uint(*json, key));
  for (const char* key : {"s", "u", "o", "absent"}) EXPECT_FALSE(json_array(*json, key));
  for (const char* key : {"s", "u", "a", "absent"}) EXPECT_FALSE(json_object(*json, key));
  EXPECT_EQ(json_uint(*json, "n").error().message,
            "JSON key 'n' is missing or is not an unsigned integer");
  EXPECT_FALSE(json_string(Json::array(), "s"));
}

}  // namespace
}  // namespace siltstone
