// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/huggingface.hpp"
#include "ashlar/models/mamba2.hpp"
#include "ashlar/models/rwkv6.hpp"
#include "ashlar/models/rwkv7.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

// The config with members set to other texts, or taken out where the text is empty.
Value changed(std::string_view text, std::initializer_list<std::pair<const char*, const char*>> changes) {
  Value::Object members = *parse_config(text, "config").object();
  for (const auto& [key, value] : changes) {
    std::erase_if(members, [&, name = key](const auto& m) { return m.first == name; });
    if (*value != '\0') members.emplace_back(key, parse_config(value, "member"));
  }
  return members;
}
template <class Config>
std::string refused(std::string_view text,
                    std::initializer_list<std::pair<const char*, const char*>> changes) {
  return test::refusal([&] { Config::from(changed(text, changes)); });
}

constexpr std::string_view kTransformers = R"({"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32,
  "num_hidden_layers": 2, "state_size": 16, "head_dim": 8, "num_heads": 8, "expand": 2, "n_groups": 2,
  "conv_kernel": 4, "layer_norm_epsilon": 1e-3, "time_step_limit": [0.0, {"__float__": "Infinity"}]})";
constexpr std::string_view kFla = R"({"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32,
  "num_hidden_layers": 2, "state_size": 16, "head_dim": 8, "num_heads": 8, "expand": 2, "n_groups": 2,
  "conv_kernel": 4, "norm_eps": 1e-4, "dt_limit": [0.0, Infinity]})";

TEST(Mamba2Config, TellsItsTwoWritersApart) {
  const Mamba2LmConfig a = Mamba2LmConfig::from(parse_config(kTransformers, "config"));
  EXPECT_EQ(a.mixer.norm_groups, 1);
  EXPECT_EQ(a.mixer.b_groups, 2);
  EXPECT_EQ(a.mixer.x_heads, 8);
  EXPECT_EQ(a.norm_eps, 1e-3f);
  EXPECT_EQ(a.mixer.max_step, std::numeric_limits<float>::infinity());
  const Mamba2LmConfig b = Mamba2LmConfig::from(parse_config(kFla, "config"));
  EXPECT_EQ(b.mixer.norm_groups, 2);
  EXPECT_EQ(b.norm_eps, 1e-4f);
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"layer_norm_epsilon", "1e-5"}}).find("config: it has both"), 0u);
}

TEST(Mamba2Config, RefusesWhatDoesNotFit) {
  EXPECT_EQ(
      refused<Mamba2LmConfig>(kFla, {{"num_heads", "7"}}),
      "config: \"num_heads\" is 7, expected 8, that is \"expand\" times \"hidden_size\" over \"head_dim\"");
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"n_groups", "3"}}),
            "config: \"n_groups\" is 3, expected a divisor of 8 heads");
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"head_dim", "7"}}).find("config: \"expand\" is "), 0u);
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"expand", "1e300"}}).find("config: \"expand\" is "), 0u);
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"expand", "NaN"}}).find("config: \"expand\" is "), 0u);
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"dt_limit", "[1, 0.5]"}}).find("config: \"dt_limit\" is "), 0u);
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"dt_limit", "[0, \"x\"]"}}),
            "config: \"dt_limit\" is not a list of two numbers");
  EXPECT_EQ(
      refused<Mamba2LmConfig>(kFla, {{"hidden_act", "\"mish\""}}),
      "config: \"hidden_act\" is \"mish\", which is not supported; supported: silu, swish, sqrelu, relu, "
      "sigmoid, gelu");
  EXPECT_EQ(refused<Mamba2LmConfig>(kFla, {{"rmsnorm", "false"}, {"hidden_act", "\"relu\""}}),
            "config: \"hidden_act\" is \"relu\", which is not supported; supported: silu where \"rmsnorm\" "
            "is false");
}

constexpr std::string_view kRwkv6 = R"({"model_type": "rwkv6", "vocab_size": 64, "hidden_size": 40,
  "num_hidden_layers": 3, "num_heads": 5})";
constexpr std::string_view kRwkv7 = R"({"model_type": "rwkv7", "vocab_size": 64, "hidden_size": 192,
  "num_hidden_layers": 3})";

TEST(Rwkv6Config, HasTheAuthorsDefaults) {
  const Rwkv6LmConfig c = Rwkv6LmConfig::from(parse_config(kRwkv6, "config"));
  EXPECT_EQ(c.mixer.key_dim, 4);
  EXPECT_EQ(c.mixer.value_dim, 8);
  EXPECT_EQ(c.mixer.mix_rank, 32);
  EXPECT_EQ(c.mixer.decay_rank, 64);
  EXPECT_EQ(c.intermediate_size, 160);  // 3.5 * 40 = 140, to a multiple of 32
  EXPECT_TRUE(c.channel_mix.receptance && c.input_norm && c.norm_bias);
  EXPECT_EQ(c.channel_mix.activation, Activation::relu2);
  EXPECT_EQ(Rwkv6LmConfig::from(changed(kRwkv6, {{"hidden_ratio", "4"}})).intermediate_size, 160);
  EXPECT_EQ(Rwkv6LmConfig::from(changed(kRwkv6, {{"intermediate_size", "7"}})).intermediate_size, 7);
}

TEST(Rwkv6Config, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refused<Rwkv6LmConfig>(kRwkv6, {{"num_heads", "3"}}).find("config: \"expand_k\" is "), 0u);
  EXPECT_EQ(refused<Rwkv6LmConfig>(kRwkv6, {{"expand_v", "1.1"}}).find("config: \"expand_v\" is "), 0u);
  EXPECT_EQ(refused<Rwkv6LmConfig>(kRwkv6, {{"hidden_ratio", "-1"}}).find("config: \"hidden_ratio\" is "),
            0u);
  EXPECT_EQ(refused<Rwkv6LmConfig>(kRwkv6, {{"hidden_act", "\"mish\""}}).find("config: \"hidden_act\" is "),
            0u);
}

TEST(Rwkv7Config, HasTheAuthorsDefaults) {
  const Rwkv7LmConfig c = Rwkv7LmConfig::from(parse_config(kRwkv7, "config"));
  EXPECT_EQ(c.mixer.heads, 3);
  EXPECT_EQ(c.mixer.head_dim, 64);
  EXPECT_EQ(c.mixer.value_dim, 64);
  EXPECT_EQ(c.mixer.decay_rank, 64);
  EXPECT_EQ(c.mixer.gate_rank, 128);
  EXPECT_EQ(c.mixer.rate_rank, 64);
  EXPECT_EQ(c.mixer.value_rank, 16);
  EXPECT_EQ(c.intermediate_size, 768);
  EXPECT_EQ(c.mixer.key_eps, 1e-6f);
  // Heads instead of their width; ranks that the layer chooses: 2.5, 5 and 1.7 times 192^(1/2) = 13.86, with
  // heads of 64, to a multiple of 32.
  const Rwkv7LmConfig d = Rwkv7LmConfig::from(changed(kRwkv7, {{"num_heads", "3"},
                                                               {"head_dim", "null"},
                                                               {"decay_low_rank_dim", "null"},
                                                               {"gate_low_rank_dim", "null"},
                                                               {"v_low_rank_dim", "null"},
                                                               {"fuse_norm", "false"},
                                                               {"value_dim", "[384, 384, 384]"}}));
  EXPECT_EQ(d.mixer.head_dim, 64);
  EXPECT_EQ(d.mixer.value_dim, 128);
  EXPECT_EQ(d.mixer.decay_rank, 32);
  EXPECT_EQ(d.mixer.gate_rank, 64);
  EXPECT_EQ(d.mixer.value_rank, 32);
  EXPECT_EQ(d.mixer.key_eps, 1e-24f);
}

TEST(Rwkv7Config, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refused<Rwkv7LmConfig>(kRwkv7, {{"head_dim", "50"}}),
            "config: \"hidden_size\" is 192, expected a multiple of \"head_dim\", 50");
  EXPECT_EQ(refused<Rwkv7LmConfig>(kRwkv7, {{"num_heads", "5"}}),
            "config: \"hidden_size\" is 192, expected a multiple of \"num_heads\", 5");
  EXPECT_EQ(
      refused<Rwkv7LmConfig>(kRwkv7, {{"attn", R"({"layers": [2, 0], "num_heads": 4})"}}),
      "config: \"attn\" is \"attention in layer 0\", which is not supported; supported: attention behind the "
      "first layer");
  EXPECT_EQ(refused<Rwkv7LmConfig>(kRwkv7, {{"value_dim", "[192, 192]"}}),
            "config: \"value_dim\" has 2 entries, expected one for each of 3 layers");
  EXPECT_EQ(refused<Rwkv7LmConfig>(kRwkv7, {{"value_dim", "[192, 384, 192]"}}),
            "config: \"value_dim\" is 192 and 384, expected the same for all layers");
  EXPECT_EQ(refused<Rwkv7LmConfig>(kRwkv7, {{"value_dim", "200"}}),
            "config: \"value_dim\" is not a multiple of \"hidden_size\", 192, or a list of them");
}

TEST(HybridAttention, RefusesWhatDoesNotFit) {
  auto of = [](const char* attn) { return refused<Rwkv6LmConfig>(kRwkv6, {{"attn", attn}}); };
  EXPECT_EQ(of("3"), "config: \"attn\" is not an object, a list of them, or null");
  EXPECT_EQ(of(R"({"num_heads": 4})"), "config: \"attn\" has no list \"layers\"");
  EXPECT_EQ(of(R"({"layers": [1]})"), "config: \"num_heads\" is missing");
  EXPECT_EQ(of(R"({"layers": [3], "num_heads": 4})"),
            "config: \"attn\" names a layer that is not an integer from 0 to 2");
  EXPECT_EQ(of(R"([{"layers": [1], "num_heads": 4}, {"layers": [2, 1], "num_heads": 2}])"),
            "config: \"attn\" names layer 1 twice");
  EXPECT_EQ(of(R"({"layers": [1], "num_heads": 4, "num_kv_heads": 3})"),
            "config: \"attn\" has 4 heads and 3 key-value heads, expected divisors of 40 and 4");
  EXPECT_EQ(of(R"({"layers": [1], "num_heads": 8})"),
            "config: \"attn\" has heads of 5, expected an even number for their rotation");
  EXPECT_EQ(
      of(R"({"layers": [1], "num_heads": 4, "rope_theta": Infinity})").find("config: \"attn\" has \"rope"),
      0u);
}

}  // namespace
}  // namespace ashlar
