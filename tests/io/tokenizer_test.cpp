// SPDX-License-Identifier: Apache-2.0
#include <ctime>
#include <map>
#include <thread>

#include "tests/io/tokenizer_support.hpp"

namespace ashlar {
namespace {

using namespace test;

// White space, letters with and without case, marks, digits, emoji, private use, anything.
std::string random_text(std::mt19937& rng, int length) {
  std::string s;
  const auto pick = [&](unsigned n) { return static_cast<char32_t>(rng() % n); };
  for (int i = 0; i < length; ++i) {
    switch (pick(9)) {
      case 0: s += utf8(U" \n\r\t\u00a0\u0085\u2028\u3000"[pick(8)]); break;
      case 1: s += utf8(0x300 + pick(0x70)); break;
      case 2: s += utf8(0xa0 + pick(0x400)); break;
      case 3: s += utf8(0x4e00 + pick(0x5000)); break;
      case 4: s += utf8(0x1f300 + pick(0x300)); break;
      case 5: {
        const char32_t c = 1 + pick(0x10fffe);
        s += utf8(c >= 0xd800 && c < 0xe000 ? U'x' : c);
        break;
      }
      case 6: s += ' '; [[fallthrough]];
      default: s += static_cast<char>(0x20 + pick(0x5f));
    }
  }
  return s;
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
      const std::clock_t start = std::clock();
      const Ids ids = t.encode(text, false);
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
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
