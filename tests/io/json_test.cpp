// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/json.hpp"

#include <limits>

#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;

TEST(Json, BecomesATree) {
  const Value v =
      parse_json(R"( {"a": [1, -2, 3.5, "x\u00e9\n", null, true], "b": {"c": {}}, "": 9223372036854775807,
                                  "big": 18446744073709551615, "e": 1e3} )",
                 "text");
  ASSERT_NE(v.object(), nullptr);
  EXPECT_EQ(v.object()->at(0).first, "a");
  EXPECT_EQ(v.object()->at(4).first, "e");
  const auto& a = *v.find("a")->array();
  ASSERT_EQ(a.size(), 6u);
  EXPECT_EQ(*a[0].integer(), 1);
  EXPECT_EQ(*a[1].integer(), -2);
  EXPECT_EQ(a[2].integer(), nullptr);
  EXPECT_EQ(*a[3].string(), "x\xc3\xa9\n");
  EXPECT_TRUE(a[4].is_null());
  EXPECT_TRUE(*a[5].boolean());
  EXPECT_TRUE(v.find("b")->find("c")->object()->empty());
  EXPECT_EQ(*v.find("")->integer(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(v.get_number("big"), 18446744073709551616.0);
  EXPECT_EQ(v.get_number("e"), 1000);
  EXPECT_EQ(*parse_json("7", "text").integer(), 7);
}

TEST(Json, RefusesWhatIsNoJson) {
  for (std::string_view text :
       {"",          " ",      "{",       "[1,]",        "{\"a\":1,}",   "{a:1}", "'x'",           "nul",
        "01",        "1.",     "+1",      "NaN",         "Infinity",     "1e999", "[1] 2",         "[1]]",
        "/* c */ 1", "\"\t\"", "\"\\x\"", "\"\\ud800\"", "\"\\udc00x\"", "\"",    "\xef\xbb\xbf{}"})
    EXPECT_EQ(kind([&] { parse_json(text, "text"); }), "InvalidJson") << text;
  EXPECT_EQ(kind([] { parse_json(std::string_view("{}\0", 3), "text"); }), "InvalidJson");
  EXPECT_EQ(kind([] { parse_json(std::string_view("[1\0,2]", 7), "text"); }), "InvalidJson");
}

TEST(Json, RefusesWhatIsNoUtf8) {
  for (std::string_view bytes : {"\x80", "\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                                 "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe2\x82", "\xf0\x9f\x98"}) {
    EXPECT_EQ(kind([&] { parse_json(concat("\"", bytes, "\""), "text"); }), "InvalidJson");
    EXPECT_EQ(kind([&] { parse_json(bytes, "text"); }), "InvalidJson");
  }
  for (std::string_view good :
       {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xee\x80\x80"})
    EXPECT_EQ(*parse_json(concat("\"", good, "\""), "text").string(), good);
}

TEST(Json, RefusesANameTwiceInOneObject) {
  EXPECT_EQ(kind([] { parse_json(R"({"a": 1, "b": 2, "a": 1})", "text"); }), "InvalidJson");
  EXPECT_EQ(kind([] { parse_json(R"([{"x": {"a": 1, "\u0061": 1}}])", "text"); }), "InvalidJson");
  EXPECT_EQ(kind([] { parse_json(R"({"a": {"a": [{"a": 1}, {"a": 2}]}})", "text"); }), "OK");
}

TEST(Json, IsNestedToALimit) {
  const auto nested = [](std::size_t n, std::string_view open, std::string_view close) {
    std::string s;
    for (std::size_t i = 0; i < n; ++i) s += open;
    s += "0";
    for (std::size_t i = 0; i < n; ++i) s += close;
    return s;
  };
  for (const auto& brackets : {std::pair{"[", "]"}, std::pair{"{\"a\":", "}"}}) {
    const std::string_view open = brackets.first, close = brackets.second;
    EXPECT_EQ(kind([&] { parse_json(nested(kJsonDepth, open, close), "text"); }), "OK");
    EXPECT_EQ(kind([&] { parse_json(nested(kJsonDepth + 1, open, close), "text"); }), "InvalidJson");
    EXPECT_EQ(kind([&] { parse_json(nested(1'000'000, open, close), "text"); }), "InvalidJson");
  }
}

TEST(Json, SaysWhereAndWhat) {
  try {
    parse_json("{\"a\": nope}", "config.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(
        std::string_view(e.what()).starts_with("config.json: not JSON: parse error at line 1, column 8"))
        << e.what();
  }
}

TEST(Json, ReadsAFile) {
  const test::TempDir dir;
  EXPECT_EQ(read_json(dir.write("c.json", "{\"n\": 5}")).get_integer("n"), 5);
  EXPECT_EQ(kind([&] { read_json(dir.path("none.json")); }), "FileNotFound");
  EXPECT_EQ(kind([&] { read_json(dir.path()); }), "FileUnreadable");
  EXPECT_EQ(kind([&] { read_json(dir.write("empty.json", "")); }), "InvalidJson");
}

}  // namespace
}  // namespace ashlar
