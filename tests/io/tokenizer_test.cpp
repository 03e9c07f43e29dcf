// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/tokenizer.hpp"

#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/support.hpp"

namespace ashlar {
namespace {

using Ids = std::vector<std::int32_t>;
using Json = nlohmann::json;
const std::string kFolder = ASHLAR_GOLDENS "/tokenizer/";

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

std::string kind_of_error(const std::string& json) {
  try {
    Tokenizer::from_json(json);
  } catch (const Error& e) {
    return e.kind();
  }
  return "accepted";
}

std::string utf8(char32_t c) {
  std::string s;
  if (c < 0x80) return s += static_cast<char>(c);
  if (c < 0x800) return s += static_cast<char>(0xc0 | c >> 6), s += static_cast<char>(0x80 | (c & 63));
  if (c < 0x10000)
    s += static_cast<char>(0xe0 | c >> 12);
  else
    s += static_cast<char>(0xf0 | c >> 18), s += static_cast<char>(0x80 | (c >> 12 & 63));
  return s += static_cast<char>(0x80 | (c >> 6 & 63)), s += static_cast<char>(0x80 | (c & 63));
}

// White space, letters with and without case, marks, digits, emoji, private use, anything.
std::string random_text(std::mt19937& rng, int length) {
  std::string s;
  const auto pick = [&](unsigned n) { return static_cast<char32_t>(rng() % n); };
  for (int i = 0; i < length; ++i) {
    switch (pick(9)) {
      case 0:
        s += utf8(U" \n\r\t\u00a0\u0085\u2028\u3000"[pick(8)]);
        break;
      case 1:
        s += utf8(0x300 + pick(0x70));
        break;
      case 2:
        s += utf8(0xa0 + pick(0x400));
        break;
      case 3:
        s += utf8(0x4e00 + pick(0x5000));
        break;
      case 4:
        s += utf8(0x1f300 + pick(0x300));
        break;
      case 5: {
        const char32_t c = 1 + pick(0x10fffe);
        s += utf8(c >= 0xd800 && c < 0xe000 ? U'x' : c);
        break;
      }
      case 6:
        s += ' ';
        [[fallthrough]];
      default:
        s += static_cast<char>(0x20 + pick(0x5f));
    }
  }
  return s;
}

// A tokenizer.json of a model's vocabulary and merges with other parts.
Json file_of(const Json& model, const Json& parts) {
  Json j = {{"version", "1.0"},         {"added_tokens", Json::array()}, {"normalizer", nullptr},
            {"pre_tokenizer", nullptr}, {"post_processor", nullptr},     {"decoder", nullptr}};
  j["model"] = model;
  if (!parts.is_null()) j.update(parts);
  return j;
}
Json characters_model(const std::string& alphabet, const std::vector<std::array<std::string, 2>>& merges) {
  Json vocab = Json::object(), pairs = Json::array();
  int id = 0;
  for (std::size_t i = 0; i < alphabet.size();) {
    std::size_t end = i + 1;
    while (end < alphabet.size() && (static_cast<unsigned char>(alphabet[end]) & 0xc0) == 0x80) ++end;
    vocab[alphabet.substr(i, end - i)] = id++;
    i = end;
  }
  for (const auto& [a, b] : merges) {
    if (!vocab.contains(a + b)) vocab[a + b] = id++;
    pairs.push_back({a, b});
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", pairs}};
}
std::vector<std::string> tokens_of(const Tokenizer& t, const std::string& text) {
  std::vector<std::string> all;
  for (std::int32_t id : t.encode(text)) all.emplace_back(t.token(id));
  return all;
}
using Strings = std::vector<std::string>;

// The pieces of a pre-tokenizer: everything that is one piece becomes one token through ignore_merges.
Strings pieces_of(const Json& pre_tokenizer, const std::string& text, const Strings& expected) {
  Json vocab = Json::object();
  int id = 0;
  for (const std::string& p : expected)
    if (!vocab.contains(p)) vocab[p] = id++;
  vocab["?"] = id;
  const Json model = {{"type", "BPE"},         {"vocab", vocab},   {"merges", Json::array()},
                      {"ignore_merges", true}, {"unk_token", "?"}, {"fuse_unk", true}};
  return tokens_of(Tokenizer::from_json(file_of(model, {{"pre_tokenizer", pre_tokenizer}}).dump()), text);
}
void expect_pieces(const Json& pre_tokenizer, const std::string& text, const Strings& expected) {
  EXPECT_EQ(pieces_of(pre_tokenizer, text, expected), expected) << pre_tokenizer << " on " << text;
}

TEST(Tokenizer, MatchesTheGoldens) {
  for (const char* name : {"gpt2", "llama3", "qwen", "spm"}) {
    const Tokenizer t = Tokenizer::from_file(kFolder + name + ".tokenizer.json");
    for (const Json& c : Json::parse(read(kFolder + name + ".cases.json"))) {
      const auto text = c["text"].get<std::string>();
      const auto ids = c["ids"].get<Ids>();
      EXPECT_EQ(t.encode(text), ids) << name << ": " << text;
      EXPECT_EQ(t.decode(ids, name == std::string("spm")), text) << name;
    }
  }
}

TEST(Tokenizer, PiecesOfTheGoldens) {
  for (const char* name : {"gpt2", "llama3", "qwen"}) {
    const Json pre = Json::parse(read(kFolder + name + ".tokenizer.json"))["pre_tokenizer"];
    const Json split =
        pre["type"] == "Sequence"
            ? pre["pretokenizers"][0]
            : Json{{"type", "Split"},
                   {"pattern",
                    {{"Regex",
                      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
    for (const Json& c : Json::parse(read(kFolder + name + ".cases.json")))
      if (c["text"].get<std::string>().find("<|") == std::string::npos)
        expect_pieces(split, c["text"], c["pieces"].get<Strings>());
  }
}

// Ids of a piece by the definition: join the pair of the lowest rank, the leftmost of equals, until none is
// left.
Ids naive_merges(const Json& model, Strings symbols) {
  std::map<std::pair<std::string, std::string>, int> ranks;
  int rank = 0;
  for (const Json& m : model["merges"]) ranks[{m[0], m[1]}] = rank++;
  for (;;) {
    int best = rank;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto r = ranks.find({symbols[i], symbols[i + 1]});
      if (r != ranks.end() && r->second < best) best = r->second, at = i;
    }
    if (best == rank) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string& s : symbols) ids.push_back(model["vocab"][s]);
  return ids;
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  std::mt19937 rng(3);
  for (int trial = 0; trial < 40; ++trial) {
    // Random merges over an alphabet of characters near and far, some of which join nothing.
    const Strings alphabet = {"a", "b", "c", "\xc3\xa9", "\xe2\x96\x81", "z"};
    Strings known(alphabet.begin(), alphabet.end() - 1);
    std::vector<std::array<std::string, 2>> merges;
    for (int m = 0; m < 30; ++m) {
      const std::string left = known[rng() % known.size()], right = known[rng() % known.size()];
      const bool there = std::find(merges.begin(), merges.end(), std::array{left, right}) != merges.end();
      if (there || left.size() + right.size() > 40) continue;
      merges.push_back({left, right});
      if (std::find(known.begin(), known.end(), left + right) == known.end()) known.push_back(left + right);
    }
    std::shuffle(merges.begin(), merges.end(), rng);
    std::string letters;
    for (const std::string& a : alphabet) letters += a;
    const Json model = characters_model(letters, merges);
    const Tokenizer t = Tokenizer::from_json(file_of(model, {}).dump());
    for (int length : {1, 2, 3, 7, 31, 32, 33, 34, 100, 300}) {
      Strings symbols;
      std::string text;
      for (int i = 0; i < length; ++i) {
        symbols.push_back(alphabet[rng() % (rng() % 4 ? 2 : alphabet.size())]);
        text += symbols.back();
      }
      ASSERT_EQ(t.encode(text), naive_merges(model, symbols)) << text << " " << model;
    }
  }
}

TEST(Tokenizer, RandomTextRoundTripsOnByteLevel) {
  std::mt19937 rng(4);
  for (const char* name : {"gpt2", "llama3"}) {  // qwen normalizes
    const Tokenizer t = Tokenizer::from_file(kFolder + name + ".tokenizer.json");
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(rng, i % 60);
      ASSERT_EQ(t.decode(t.encode(text)), text) << name;
    }
  }
}

TEST(Tokenizer, StreamingIsDecoding) {
  std::mt19937 rng(5);
  Json spm = Json::parse(read(kFolder + "spm.tokenizer.json"));
  std::vector<std::string> files;
  for (const char* name : {"gpt2", "llama3", "qwen", "spm"})
    files.push_back(read(kFolder + name + ".tokenizer.json"));
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "\xe2\x96\x81t"}}}, {"content", " T"}};
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 2}};
  const auto sequence = [](const Json& parts) { return Json{{"type", "Sequence"}, {"decoders", parts}}; };
  for (const Json& decoder :
       {Json(nullptr),
        Json{{"type", "Metaspace"}, {"replacement", "\xe2\x96\x81"}, {"prepend_scheme", "first"}},
        Json{{"type", "BPEDecoder"}, {"suffix", "e"}}, sequence({{{"type", "Fuse"}}, replace, strip}),
        sequence({{{"type", "ByteFallback"}}, {{"type", "Metaspace"}}, {{"type", "Fuse"}}, strip}),
        sequence(
            {{{"type", "Fuse"}}, {{"type", "Replace"}, {"pattern", {{"Regex", "[t-z]+"}}}, {"content", ""}}}),
        sequence({strip, {{"type", "ByteLevel"}}})}) {
    spm["decoder"] = decoder;
    files.push_back(spm.dump());
  }
  for (const std::string& file : files) {
    const Tokenizer t = Tokenizer::from_json(file);
    TokenStream stream(t);
    for (int trial = 0; trial < 100; ++trial) {
      Ids ids(rng() % 40);
      const unsigned low = trial % 3 == 0 ? 259 : 0;  // byte tokens are most of the vocabularies
      for (auto& id : ids)
        id = static_cast<std::int32_t>(low + rng() % (static_cast<unsigned>(t.vocab_size()) - low));
      std::string all;
      for (std::int32_t id : ids) {
        const std::string piece = stream.push(id);
        // A piece that ends inside a character would show as a broken first character in the next one.
        ASSERT_TRUE(Json(piece).dump(-1, ' ', false, Json::error_handler_t::strict).size() >= 2);
        all += piece;
      }
      all += stream.finish();
      ASSERT_EQ(all, t.decode(ids));
    }
  }
}

TEST(TokenStream, HoldsIncompleteCharacters) {
  const Tokenizer gpt2 = Tokenizer::from_file(kFolder + "gpt2.tokenizer.json");
  TokenStream s(gpt2);
  EXPECT_EQ(s.push(0xe6), "");
  EXPECT_EQ(s.push(0x97), "");
  TokenStream copy = s;
  EXPECT_EQ(s.push(0xa5), "\xe6\x97\xa5");
  EXPECT_EQ(s.finish(), "");
  EXPECT_EQ(copy.push('a'),
            "\xef\xbf\xbd"
            "a");
  EXPECT_EQ(copy.push(0xe6), "");
  EXPECT_EQ(copy.finish(), "\xef\xbf\xbd");
}

TEST(TokenStream, SentencePieceStripsOnceAndKeepsByteRuns) {
  const Tokenizer t = Tokenizer::from_file(kFolder + "spm.tokenizer.json");
  const auto id = [&](const char* token) { return t.id_of(token); };
  TokenStream s(t);
  EXPECT_EQ(s.push(id("\xe2\x96\x81the")), "the");
  EXPECT_EQ(s.push(id("\xe2\x96\x81the")), " the");
  EXPECT_EQ(s.push(id("<0xC3>")), "");
  EXPECT_EQ(s.push(id("<0xA9>")), "");
  EXPECT_EQ(s.push(id("a")),
            "\xc3\xa9"
            "a");
  EXPECT_EQ(s.push(id("<0xC3>")), "");
  EXPECT_EQ(s.push(id("<0xC3>")), "");
  EXPECT_EQ(s.push(id("a")),
            "\xef\xbf\xbd\xef\xbf\xbd"
            "a");
  EXPECT_EQ(s.finish(), "");
  EXPECT_EQ(t.decode(Ids{1, id("\xe2\x96\x81\xe2\x96\x81"), id("a")}, true), " a");
  EXPECT_EQ(t.decode(Ids{1, id("\xe2\x96\x81"), id("a")}, false), "<s> a");
  EXPECT_EQ(t.decode(Ids{1, id("\xe2\x96\x81"), id("a")}, true), "a");
}

TEST(Tokenizer, LongInputsAreFast) {
  for (const char* name : {"gpt2", "llama3", "qwen", "spm"}) {
    const Tokenizer t = Tokenizer::from_file(kFolder + name + ".tokenizer.json");
    for (const std::string unit : {"a", " ", "\n", "1", "he", "\xe6\x97\xa5", "  \n", "\xcc\x81"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      const auto start = std::chrono::steady_clock::now();
      const Ids ids = t.encode(text, false);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      EXPECT_LT(seconds, 5) << name << ", " << unit.size()
                            << " bytes repeated";  // quadratic would be minutes
      EXPECT_EQ(t.decode(ids), text);
    }
  }
}

TEST(Tokenizer, BytesThatAreNotUtf8) {
  const Tokenizer t = Tokenizer::from_file(kFolder + "gpt2.tokenizer.json");
  EXPECT_EQ(t.encode("a\xff\xe6\x97z\xc0\x80"), t.encode("a\ufffd\ufffdz\ufffd\ufffd"));
  EXPECT_EQ(t.encode("\xed\xa0\x80"), t.encode("\ufffd\ufffd\ufffd"));
  EXPECT_EQ(t.decode(Ids{0xff, 'a'}),
            "\ufffd"
            "a");
}

TEST(Tokenizer, IdsAndNames) {
  const Tokenizer t = Tokenizer::from_file(kFolder + "gpt2.tokenizer.json");
  EXPECT_EQ(t.vocab_size(), 283);
  EXPECT_EQ(t.id_of("<|end|>"), 282);
  EXPECT_EQ(t.token(258), "\u0120the");
  EXPECT_EQ(t.id_of("no such token"), -1);
  EXPECT_TRUE(t.is_special(281));
  EXPECT_FALSE(t.is_special(258));
  EXPECT_EQ(t.decode(Ids{281, 258}, true), " the");
  EXPECT_EQ(test::refusal([&] { t.decode(Ids{283}); }),
            "tokenizer: there is no token with id 283, expected one of the 283 below 283");
  EXPECT_NE(test::refusal([&] { TokenStream(t).push(-1); }), "");
}

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

TEST(Tokenizer, VocabularyAndMerges) {
  Json gpt2 = Json::parse(read(kFolder + "gpt2.tokenizer.json"));
  std::string merges = "#version: 0.2\n";
  for (const Json& m : gpt2["model"]["merges"]) merges += m.get<std::string>() + "\n";
  const Tokenizer t = Tokenizer::from_vocab_and_merges(gpt2["model"]["vocab"].dump(), merges);
  for (const Json& c : Json::parse(read(kFolder + "gpt2.cases.json"))) {
    const auto text = c["text"].get<std::string>();
    if (text.find("<|") != std::string::npos) continue;
    EXPECT_EQ(t.encode(text), c["ids"].get<Ids>());
  }
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

TEST(Tokenizer, ThreadsShareOne) {
  const Tokenizer t = Tokenizer::from_file(kFolder + "llama3.tokenizer.json");
  std::mt19937 rng(6);
  std::vector<std::string> texts;
  std::vector<Ids> alone, together(64);
  for (int i = 0; i < 64; ++i)
    texts.push_back(random_text(rng, 200)), alone.push_back(t.encode(texts.back()));
  std::vector<std::thread> threads;
  for (std::size_t w = 0; w < 4; ++w)
    threads.emplace_back([&, w] {
      for (std::size_t i = w; i < texts.size(); i += 4) together[i] = t.encode(texts[i]);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace ashlar
