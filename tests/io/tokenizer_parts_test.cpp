// SPDX-License-Identifier: Apache-2.0
#include "tests/io/tokenizer_support.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(Tokenizer, AddedTokens) {
  const auto added = [](int id, const char* content, const char* flags) {
    const std::string f = flags;
    const auto has = [&](char c) { return f.find(c) != f.npos; };
    return Json{{"id", id},           {"content", content}, {"single_word", has('w')},
                {"lstrip", has('l')}, {"rstrip", has('r')}, {"normalized", has('n')},
                {"special", has('s')}};
  };
  const Json model = characters_model("abcx <>/", {});
  const Json tokens = {added(50, "<a>", "s"), added(51, "<a>b", ""), added(52, "ab", "w"),
                       added(53, "<l>", "l"), added(54, "<r>", "r"), added(55, "XX", "n")};
  const Tokenizer t = Tokenizer::from_json(
      file_of(model, {{"added_tokens", tokens}, {"normalizer", {{"type", "Lowercase"}}}}).dump());
  EXPECT_EQ(tokens_of(t, "<a><a>bc"), (Strings{"<a>", "<a>b", "c"}));
  EXPECT_EQ(tokens_of(t, "ab abc ab"), (Strings{"ab", " ", "a", "b", "c", " ", "ab"}));
  EXPECT_EQ(tokens_of(t, "a  <l> b"), (Strings{"a", "<l>", " ", "b"}));
  EXPECT_EQ(tokens_of(t, "a <r>  <l>b"), (Strings{"a", " ", "<r>", "<l>", "b"}));
  EXPECT_EQ(tokens_of(t, "Xxx"), (Strings{"XX", "x"}));
}

TEST(Tokenizer, SplitBehaviors) {
  const auto split = [](const char* behavior, bool invert = false) {
    return Json{
        {"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
  };
  const std::string text = "the-final--countdown";
  expect_pieces(split("Removed"), text, {"the", "final", "countdown"});
  expect_pieces(split("Isolated"), text, {"the", "-", "final", "-", "-", "countdown"});
  expect_pieces(split("MergedWithPrevious"), text, {"the-", "final-", "-", "countdown"});
  expect_pieces(split("MergedWithNext"), text, {"the", "-final", "-", "-countdown"});
  expect_pieces(split("Contiguous"), text, {"the", "-", "final", "--", "countdown"});
  expect_pieces(split("Removed", true), text, {"-", "-", "-"});
  expect_pieces(split("MergedWithNext"), "-a-", {"-a", "-"});
  expect_pieces(split("MergedWithPrevious"), "-a-", {"-", "a-"});
}

TEST(Tokenizer, PreTokenizers) {
  const std::string m = "\u2581";
  expect_pieces({{"type", "Metaspace"}, {"replacement", m}}, "Hey  you", {m + "Hey", m, m + "you"});
  expect_pieces({{"type", "Metaspace"}, {"replacement", m}, {"prepend_scheme", "never"}}, "Hey you",
                {"Hey", m + "you"});
  expect_pieces({{"type", "Metaspace"}, {"replacement", m}, {"split", false}}, "Hey you",
                {m + "Hey" + m + "you"});
  expect_pieces({{"type", "Digits"}, {"individual_digits", true}}, "a12b", {"a", "1", "2", "b"});
  expect_pieces({{"type", "Digits"}}, "a12b", {"a", "12", "b"});
  expect_pieces({{"type", "Whitespace"}}, "How are  you?! \u00e9e\u0301",
                {"How", "are", "you", "?!", "\u00e9e\u0301"});
  expect_pieces({{"type", "WhitespaceSplit"}}, " How are\u00a0you?!", {"How", "are", "you?!"});
  expect_pieces({{"type", "Punctuation"}}, "Hi!? $a\u00bf", {"Hi", "!", "?", " ", "$", "a", "\u00bf"});
  expect_pieces({{"type", "ByteLevel"}, {"add_prefix_space", true}}, "a b", {"\u0120a", "\u0120b"});
  expect_pieces(
      {{"type", "Sequence"},
       {"pretokenizers", {{{"type", "WhitespaceSplit"}}, {{"type", "Digits"}, {"individual_digits", true}}}}},
      "a12 3", {"a", "1", "2", "3"});
  // The scheme "first" looks at the beginning of the whole text only.
  const Json model = characters_model("ab<>" + m, {});
  const Json added = Json::array({{{"id", 9}, {"content", "<>"}, {"normalized", false}}});
  const Json first = {{"type", "Metaspace"}, {"replacement", m}, {"prepend_scheme", "first"}};
  const Tokenizer t =
      Tokenizer::from_json(file_of(model, {{"added_tokens", added}, {"pre_tokenizer", first}}).dump());
  EXPECT_EQ(tokens_of(t, "a<>b"), (Strings{m, "a", "<>", "b"}));
  EXPECT_EQ(tokens_of(t, "<>b"), (Strings{"<>", "b"}));
}

TEST(Tokenizer, PatternsAreOnigurumas) {
  const auto pieces = [](const char* regex, const std::string& text, const Strings& expected) {
    expect_pieces({{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}}, text,
                  expected);
  };
  // White space before a word: all but the last.
  pieces(R"(\s+(?!\S)|\s+)", "a   b", {"a", "  ", " ", "b"});
  pieces(R"(\s+(?!\S)|\s+)", "a b  ", {"a", " ", "b", "  "});
  pieces(R"(\s+)", "a\u0085\u3000\u2028b\u180e", {"a", "\u0085\u3000\u2028", "b\u180e"});
  pieces(R"([^\S\n]+)", "a \t\nb", {"a", " \t", "\nb"});
  pieces(R"(\S+)", "ab c\u180e", {"ab", " ", "c\u180e"});
  pieces(R"(\w+)", "e\u0301_1-\u00e9", {"e\u0301_1", "-", "\u00e9"});
  pieces(R"([^\W\d]+)", "ab12cd", {"ab", "12", "cd"});
  pieces(R"([\W\d]+)", "ab1 2cd", {"ab", "1 2", "cd"});
  pieces(R"([\p{L}&&[^\p{Han}]]+)", "ab\u65e5\u672ccd", {"ab", "\u65e5\u672c", "cd"});
  pieces(R"([^a-z&&[^q]]+)", "abXqYc", {"ab", "XqY", "c"});
  pieces(R"([a[0-9]]+)", "ba12b", {"b", "a12", "b"});
  pieces(R"(\p{Han}+)", "\u65e5\u3001\u672c", {"\u65e5", "\u3001", "\u672c"});
  pieces(R"(\h+)", "xyabz", {"xy", "ab", "z"});
  pieces(R"(\p{N}{1,3}+)", "12345", {"12345"});
  pieces(R"((?i:'s|'LL))", "it'S we'll", {"it", "'S", " we", "'ll"});
  pieces(R"((?m:a.b))", "xa\nb", {"x", "a\nb"});
  pieces(R"(x*)", "axxb", {"a", "xx", "b"});
  pieces(R"([\]\[^]+)", "a]^[b", {"a", "]^[", "b"});
  const std::string o200k =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  pieces(o200k.c_str(), "HelloWorld it's 1234 //\n x",
         {"Hello", "World", " it's", " ", "123", "4", " //\n", " x"});
}

TEST(Tokenizer, Normalizers) {
  const auto normal = [](const Json& normalizer, const std::string& text) {
    Json vocab = Json::object();
    for (int c = 0x20; c < 0x2600; ++c)
      if (c < 0xd800) vocab[utf8(static_cast<char32_t>(c))] = c;
    vocab["fi"] = 0x2600, vocab["\n"] = 1;
    const Json model = {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}};
    const Json decoder = {{"type", "Fuse"}};
    const Tokenizer t =
        Tokenizer::from_json(file_of(model, {{"normalizer", normalizer}, {"decoder", decoder}}).dump());
    return t.decode(t.encode(text));
  };
  EXPECT_EQ(normal({{"type", "NFC"}}, "e\u0301 \u1e9b\u0323"), "\u00e9 \u1e9b\u0323");
  EXPECT_EQ(normal({{"type", "NFD"}}, "\u00e9 \u1e9b\u0323"), "e\u0301 \u017f\u0323\u0307");
  EXPECT_EQ(normal({{"type", "NFKC"}}, "\ufb01 \u1e9b\u0323"), "fi \u1e69");
  EXPECT_EQ(normal({{"type", "NFKD"}}, "\ufb01 \u1e9b\u0323"), "fi s\u0323\u0307");
  EXPECT_EQ(normal({{"type", "NFC"}}, "\u1112\u1161\u11ab"), "");  // a syllable, which the vocabulary lacks
  EXPECT_EQ(normal({{"type", "Lowercase"}}, "A\u00c9\u0130"), "a\u00e9i\u0307");
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \u00a0a "), "a ");
  EXPECT_EQ(normal({{"type", "Strip"}}, "  a \n"), "a");
  EXPECT_EQ(normal({{"type", "Prepend"}, {"prepend", "_"}}, "a"), "_a");
  EXPECT_EQ(normal({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(normal({{"type", "Replace"}, {"pattern", {{"String", "aa"}}}, {"content", "b"}}, "aaaxa"),
            "baxa");
  EXPECT_EQ(normal({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}}, "a   b c"),
            "a b c");
  EXPECT_EQ(
      normal(
          {{"type", "Sequence"},
           {"normalizers",
            {{{"type", "NFD"}}, {{"type", "Replace"}, {"pattern", {{"Regex", "\\p{M}"}}}, {"content", ""}}}}},
          "\u00e9\u00e0"),
      "ea");
}

TEST(Tokenizer, ModelOptions) {
  Json model = characters_model("ab?", {{"a", "b"}});
  EXPECT_EQ(tokens_of(Tokenizer::from_json(file_of(model, {}).dump()), "azb"),
            (Strings{"ab"}));  // z is dropped
  model["unk_token"] = "?";
  EXPECT_EQ(tokens_of(Tokenizer::from_json(file_of(model, {}).dump()), "zza"), (Strings{"?", "?", "a"}));
  model["fuse_unk"] = true;
  EXPECT_EQ(tokens_of(Tokenizer::from_json(file_of(model, {}).dump()), "zzaz"), (Strings{"?", "a", "?"}));
  model["unk_token"] = "none";
  EXPECT_NE(test::refusal([&] { Tokenizer::from_json(file_of(model, {}).dump()).encode("z"); }), "");

  const Json affixes = {
      {"type", "BPE"},
      {"vocab", {{"a", 0}, {"##b", 1}, {"##b.", 2}, {"a.", 3}, {"ab", 4}, {"ab.", 5}, {"##a", 6}}},
      {"merges", Json::array({Json::array({"a", "##b"}), Json::array({"a", "##b."})})},
      {"continuing_subword_prefix", "##"},
      {"end_of_word_suffix", "."}};
  const Tokenizer t = Tokenizer::from_json(file_of(affixes, {}).dump());
  EXPECT_EQ(tokens_of(t, "ab"), (Strings{"ab."}));
  EXPECT_EQ(tokens_of(t, "abb"), (Strings{"ab", "##b."}));
  EXPECT_EQ(tokens_of(t, "a"), (Strings{"a."}));
}

TEST(Tokenizer, RefusesWhatItDoesNotSupport) {
  const Json model = characters_model("ab", {{"a", "b"}});
  const auto with = [&](const Json& parts) { return kind_of_error(file_of(model, parts).dump()); };
  EXPECT_EQ(with({}), "accepted");
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    EXPECT_EQ(with({{part, {{"type", "Unheard"}}}}), "UnsupportedTokenizer") << part;
    EXPECT_EQ(with({{part, {{"type", 3}}}}), "InvalidTokenizer") << part;
    EXPECT_EQ(with({{part, 3}}), "InvalidTokenizer") << part;
    EXPECT_EQ(with({{part, {{"type", "Sequence"}}}}), "InvalidTokenizer") << part;
  }
  for (const char* kind : {"Unigram", "WordPiece", "WordLevel"})
    EXPECT_EQ(kind_of_error(file_of({{"type", kind}, {"vocab", {{"a", 0}}}}, {}).dump()),
              "UnsupportedTokenizer");
  EXPECT_EQ(kind_of_error(R"({"model":{"vocab":[["a",-0.5]],"unk_id":0,"type":"Unigram"}})"),
            "UnsupportedTokenizer");
  const auto regex = [&](const std::string& r) {
    return with(
        {{"pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", r}}}, {"behavior", "Isolated"}}}});
  };
  for (const char* r : {"(", "[a", "a**b)", "\\p{Nothing}", "(*FAIL)", "\\", "(?<=a+)b", "(?~a)"})
    EXPECT_EQ(regex(r), "UnsupportedTokenizer") << r;
}

TEST(Tokenizer, RefusesBrokenFiles) {
  const std::string good = file_of(characters_model("ab", {{"a", "b"}}), {}).dump();
  EXPECT_EQ(kind_of_error(good), "accepted");
  for (std::size_t n = 0; n < good.size(); ++n)
    ASSERT_EQ(kind_of_error(good.substr(0, n)), "InvalidTokenizer") << n;
  const auto model = [&](const char* text) { return kind_of_error(concat(R"({"model":)", text, "}")); };
  EXPECT_EQ(model(R"({"vocab":{"a":0},"merges":[]})"), "accepted");
  for (const char* broken : {R"({"vocab":{"a":0,"b":0},"merges":[]})",
                             R"({"vocab":{"a":0,"a":1},"merges":[]})",
                             R"({"vocab":{"a":-1},"merges":[]})",
                             R"({"vocab":{"a":2147483647},"merges":[]})",
                             R"({"vocab":{"a":4294967296},"merges":[]})",
                             R"({"vocab":{"a":1e99},"merges":[]})",
                             R"({"vocab":{"a":"0"},"merges":[]})",
                             R"({"vocab":{"a":[0]},"merges":[]})",
                             R"({"type":"BPE","vocab":[],"merges":[]})",
                             R"({"type":"BPE","merges":[]})",
                             R"({"type":"BPE","vocab":{"a":0}})",
                             R"({"type":"BPE","vocab":{"a":0},"merges":{}})",
                             R"({"vocab":{"a":0,"b":1},"merges":["a b"]})",
                             R"({"vocab":{"a":0,"aa":1},"merges":["a  a"]})",
                             R"({"vocab":{"a":0,"aa":1},"merges":[["a"]]})",
                             R"({"vocab":{"a":0,"aa":1},"merges":[["a","a","a"]]})",
                             R"({"vocab":{"a":0,"aa":1},"merges":[["a",1]]})",
                             R"({"vocab":{"a":0,"aa":1},"merges":[[["a","a"]]]})",
                             R"({"vocab":{"":0,"a":1},"merges":[["","a"]]})",
                             R"({"vocab":{"a":0},"merges":[3]})",
                             R"({"vocab":{"a":0},"merges":[],"vocab":{"b":0}})",
                             R"({"vocab":{"a":0},"merges":[],"unk_token":3})",
                             "{\"vocab\":{\"\xff\":0},\"merges\":[]}",
                             R"({"vocab":{"\ud800":0},"merges":[]})",
                             "null",
                             "[]"})
    EXPECT_EQ(model(broken), "InvalidTokenizer") << broken;
  EXPECT_EQ(kind_of_error("{}"), "InvalidTokenizer");
  EXPECT_EQ(kind_of_error(std::string(1'000'000, '[')), "InvalidTokenizer");
  EXPECT_EQ(kind_of_error("{\"model\":{\"vocab\":" + std::string(1000, '[')), "InvalidTokenizer");
  const auto added = [&](const char* text) {
    return kind_of_error(
        concat(R"({"added_tokens":)", text, R"(,"model":{"vocab":{"a":0,"b":1},"merges":[]}})"));
  };
  EXPECT_EQ(added(R"([{"id":0,"content":"a"},{"id":9,"content":"c"}])"), "accepted");
  for (const char* broken :
       {R"([{"id":1,"content":"a"}])", R"([{"id":1,"content":"c"}])", R"([{"content":"c"}])", R"([{"id":7}])",
        R"([{"id":-7,"content":"c"}])", R"({"id":7})", R"([{"id":7,"content":"c"},{"id":7,"content":"d"}])",
        R"([{"id":7,"content":"c"},{"id":8,"content":"c"}])", R"([7])",
        R"([{"id":7,"content":"c","special":1}])"})
    EXPECT_EQ(added(broken), "InvalidTokenizer") << broken;
  EXPECT_NE(test::refusal([] { Tokenizer::from_file("/no/such/file"); }), "");
  EXPECT_NE(test::refusal([] { Tokenizer::from_directory("/no/such/folder"); }), "");
}

TEST(Tokenizer, GrowthIsBounded) {
  const Json grow = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(60, 'a')}};
  const Json parts = {
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {grow, grow, grow, grow, grow, grow}}}}};
  const Tokenizer t = Tokenizer::from_json(file_of(characters_model("a", {}), parts).dump());
  EXPECT_NE(test::refusal([&] { t.encode("aaaa"); }), "");
}

}  // namespace
}  // namespace ashlar
