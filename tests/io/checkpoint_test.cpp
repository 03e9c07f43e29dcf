// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/checkpoint.hpp"

#include <cmath>
#include <limits>

#include "ashlar/io/huggingface.hpp"
#include "ashlar/io/json.hpp"
#include "ashlar/io/safetensors.hpp"
#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;
using test::malformed;

std::string verdict(const std::string& path) {
  return kind([&] { test::checksum(*open_checkpoint(path)); });
}

// Writes a file of float scalars: names and values.
void write_scalars(const std::string& path, const std::vector<std::pair<std::string, float>>& values) {
  std::vector<std::pair<std::string, Parameter>> tensors;
  for (const auto& [name, value] : values)
    tensors.emplace_back(name, Parameter{&value, DType::f32, {}, nullptr});
  write_safetensors(path, tensors);
}

std::string index_of(std::string_view weight_map) {
  return concat(R"({"metadata": {"total_size": 1}, "weight_map": {)", weight_map, "}}");
}

TEST(Checkpoint, GivesTheListedVerdictOnEveryIndex) {
  int seen = 0;
  const Value expect = read_json(malformed("EXPECT.json"));
  for (const Value& entry : *expect.array()) {
    const std::string name = entry.get_string("file", ""), want = entry.get_string("expect", "");
    if (!name.starts_with("index_")) continue;
    ++seen;
    try {
      test::checksum(*open_checkpoint(malformed(name)));
      EXPECT_EQ(want, "OK") << name;
    } catch (const Error& e) {  // `want` is a kind, and perhaps the name that the sentence must have
      const std::size_t space = want.find(' ');
      EXPECT_EQ(e.kind(), want.substr(0, space)) << name;
      if (space == want.npos) continue;
      EXPECT_NE(std::string_view(e.what()).find(want.substr(space + 1)), std::string_view::npos) << e.what();
    }
  }
  EXPECT_GE(seen, 3);
  EXPECT_EQ(open_checkpoint(malformed("index_ok.json"))->at("b").dtype, DType::i8);
}

TEST(Checkpoint, ReadsShards) {
  const test::TempDir dir;
  write_scalars(dir.path("one.safetensors"), {{"b", 2}, {"a", 1}, {"unlisted", 9}});
  write_scalars(dir.path("two.safetensors"), {{"c", 3}, {"d", 4}});
  dir.write(
      "model.safetensors.index.json",
      index_of(
          R"("d": "two.safetensors", "a": "one.safetensors", "c": "two.safetensors", "b": "one.safetensors")"));
  for (const std::string& path : {dir.path(), dir.path() + "/", dir.path("model.safetensors.index.json")}) {
    const auto checkpoint = open_checkpoint(path);
    EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b", "c", "d"}));
    float want = 1;
    for (const std::string& name : checkpoint->names())
      EXPECT_EQ(test::element<float>(checkpoint->at(name), 0), want++);
    EXPECT_FALSE(checkpoint->contains("unlisted"));
    EXPECT_FALSE(checkpoint->contains("e"));
  }
  write_scalars(dir.path("model.safetensors"), {{"single", 5}});
  EXPECT_EQ(open_checkpoint(dir.path())->names(), std::vector<std::string>{"single"});
}

TEST(Checkpoint, FollowsLinksAsTheHubCacheHasThem) {
  const test::TempDir dir;
  std::filesystem::create_directories(dir.path("snapshot"));
  write_scalars(dir.path("blob"), {{"a", 7}});
  std::filesystem::create_symlink("../blob", dir.path("snapshot/model-00001.safetensors"));
  dir.write("snapshot/model.safetensors.index.json", index_of(R"("a": "model-00001.safetensors")"));
  EXPECT_EQ(test::element<float>(open_checkpoint(dir.path("snapshot"))->at("a"), 0), 7.0f);
}

TEST(Checkpoint, RefusesBadIndexes) {
  const test::TempDir dir;
  write_scalars(dir.path("one.safetensors"), {{"a", 1}, {"b", 2}});
  write_scalars(dir.path("two.safetensors"), {{"b", 2}, {"c", 3}});
  const auto with = [&](std::string_view text) { return verdict(dir.write("i.json", text)); };
  EXPECT_EQ(with("{}"), "InvalidIndex");
  EXPECT_EQ(with("[]"), "InvalidIndex");
  EXPECT_EQ(with(R"({"weight_map": []})"), "InvalidIndex");
  EXPECT_EQ(with(index_of(R"("a": 1)")), "InvalidIndex");
  EXPECT_EQ(with("{"), "InvalidJson");
  EXPECT_EQ(with(index_of(R"("a": "one.safetensors", "a": "one.safetensors")")), "InvalidJson");
  EXPECT_EQ(with(index_of(R"("a": "one.safetensors", "b": "none.safetensors")")), "FileNotFound");
  EXPECT_EQ(with(index_of(R"("c": "one.safetensors")")), "TensorNotFound");
  EXPECT_EQ(with(index_of(R"("a": "one.safetensors", "c": "two.safetensors")")), "DuplicateTensor");
  EXPECT_EQ(with(index_of("")), "OK");
  for (const std::string& name :
       {std::string("../one.safetensors"), dir.path("one.safetensors"), std::string(""), std::string("."),
        std::string(".."), std::string("./one.safetensors"), std::string("..\\\\one.safetensors"),
        std::string("one.safetensors\\u0000")})
    EXPECT_EQ(with(index_of(concat("\"a\": \"one.safetensors\", \"b\": \"", name, "\""))), "InvalidShardName")
        << name;
}

TEST(Checkpoint, SaysWhatItLookedFor) {
  const test::TempDir dir;
  EXPECT_EQ(verdict(dir.path("none")), "FileNotFound");
  EXPECT_EQ(verdict(dir.path("none.json")), "FileNotFound");
  try {
    open_checkpoint(dir.path());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "FileNotFound");
    EXPECT_EQ(e.what(), concat("checkpoint: the directory \"", dir.path(),
                               "\" has neither model.safetensors nor model.safetensors.index.json, nor "
                               "pytorch_model.bin nor pytorch_model.bin.index.json"));
  }
}

TEST(PrefixedParameters, StripsThePrefix) {
  const test::TempDir dir;
  write_scalars(dir.path("f"), {{"param.a", 1}, {"param.", 2}, {"input.a", 3}, {"para", 4}});
  const PrefixedParameters params(open_checkpoint(dir.path("f")), "param.");
  EXPECT_EQ(params.names(), (std::vector<std::string>{"", "a"}));
  EXPECT_EQ(test::element<float>(params.at("a"), 0), 1.0f);
  EXPECT_EQ(test::element<float>(params.at(""), 0), 2.0f);
  EXPECT_FALSE(params.contains("param.a"));
  EXPECT_FALSE(params.contains("b"));
}

HuggingFaceModel model_of(std::string_view config, std::string_view generation = "") {
  const test::TempDir dir;
  write_scalars(dir.path("model.safetensors"), {{"w", 1}});
  dir.write("config.json", config);
  if (!generation.empty()) dir.write("generation_config.json", generation);
  return load_huggingface(dir.path());
}

TEST(HuggingFace, LoadsADirectory) {
  const HuggingFaceModel model = model_of(R"({"hidden_size": 8})");
  EXPECT_EQ(model.config.get_integer("hidden_size"), 8);
  EXPECT_TRUE(model.generation_config.is_null());
  EXPECT_EQ(test::element<float>(model.parameters->at("w"), 0), 1.0f);
  EXPECT_EQ(model_of("{}", R"({"n": 1})").generation_config.get_integer("n"), 1);
  EXPECT_EQ(kind([] { model_of("[]"); }), "InvalidConfig");
  EXPECT_EQ(kind([] { model_of("{"); }), "InvalidJson");
  EXPECT_EQ(kind([] { model_of("{}", "{"); }), "InvalidJson");
  const test::TempDir dir;
  EXPECT_EQ(kind([&] { load_huggingface(dir.path()); }), "FileNotFound");
  dir.write("config.json", "{}");
  EXPECT_EQ(kind([&] { load_huggingface(dir.path()); }), "FileNotFound");
}

TEST(HuggingFace, ReadsPythonsFloats) {
  const Value v = parse_config(
      R"({"limit": [0.0, Infinity, {"__float__": "-Infinity"}], "x": NaN, "s": "NaN \" Infinity \\", "y": -Infinity,)"
      R"( "z": {"__float__": "Infinity"}, "other": {"__float__": "1"}, "more": {"__float__": "NaN", "a": 1}})",
      "config");
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto number = [](const Value& member) { return Value(Value::Object{{"n", member}}).get_number("n"); };
  EXPECT_EQ(number((*v.find("limit")->array())[1]), kInfinity);
  EXPECT_EQ(number((*v.find("limit")->array())[2]), -kInfinity);
  EXPECT_TRUE(std::isnan(v.get_number("x")));
  EXPECT_EQ(v.get_number("y"), -kInfinity);
  EXPECT_EQ(v.get_number("z"), kInfinity);
  EXPECT_EQ(v.get_string("s", ""), "NaN \" Infinity \\");
  EXPECT_EQ(v.find("other")->get_string("__float__", ""), "1");
  EXPECT_NE(v.find("more")->object(), nullptr);
  EXPECT_EQ(model_of(R"({"x": Infinity})").config.get_number("x"), kInfinity);
  for (std::string_view bad : {"{\"a\": Infinit}", "{\"a\": NaNN}", "{Infinity: 1}", "\"Infinity", "nan"})
    EXPECT_EQ(kind([&] { parse_config(bad, "config"); }), "InvalidJson") << bad;
}

TEST(HuggingFace, FindsTheTokensThatEnd) {
  using Ids = std::vector<std::int32_t>;
  const auto ids = [](std::string_view config, std::string_view generation = "") {
    return end_of_text_ids(model_of(config, generation));
  };
  EXPECT_EQ(ids("{}"), Ids{});
  EXPECT_EQ(ids(R"({"eos_token_id": null})"), Ids{});
  EXPECT_EQ(ids(R"({"eos_token_id": 2})"), Ids{2});
  EXPECT_EQ(ids(R"({"eos_token_id": [2, 7]})"), (Ids{2, 7}));
  EXPECT_EQ(ids(R"({"eos_token_id": 2})", R"({"eos_token_id": [3, 4]})"), (Ids{3, 4}));
  EXPECT_EQ(ids(R"({"eos_token_id": 2})", R"({"eos_token_id": null})"), Ids{2});
  EXPECT_EQ(ids(R"({"text_config": {"eos_token_id": 5}})"), Ids{5});
  for (std::string_view bad : {"\"2\"", "2.5", "-1", "4294967296", "[2, null]", "[[2]]", "{}"})
    EXPECT_EQ(kind([&] { ids(concat("{\"eos_token_id\": ", bad, "}")); }), "InvalidConfig") << bad;
}

}  // namespace
}  // namespace ashlar
