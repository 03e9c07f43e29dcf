// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ashlar/models/hf_config.hpp"
#include "ashlar/models/restoration_net.hpp"
#include "src/models/common/checkpoint_shape.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Tensors of the heads, with the two spellings of each.
const Names kBicubic{"conv_bicubic.weight", "upsample.conv_bicubic.weight"};
const Names kFirstUp{"conv_up1.weight", "upsample.conv_up1.weight"};
const Names kSecondUp{"conv_up2.weight", "upsample.conv_up2.weight"};
const Names kBefore{"conv_before_upsample.0.weight", "upsample.conv_before_upsample.weight"};
const Names kDirect{"upsample.0.weight", "upsample.conv.weight"};
const Names kLast{"conv_last.weight", "upsample.final_convolution.weight", "final_convolution.weight"};

struct Spelling {
  Upsampler upsampler;
  std::string_view name;
};
constexpr Spelling kUpsamplers[] = {{Upsampler::pixelshuffle, "pixelshuffle"},
                                    {Upsampler::pixelshuffledirect, "pixelshuffledirect"},
                                    {Upsampler::nearest_conv, "nearest+conv"},
                                    {Upsampler::convolution, ""},
                                    {Upsampler::pixelshuffle_aux, "pixelshuffle_aux"}};

std::string_view name_of(Upsampler u) {
  for (const Spelling& s : kUpsamplers)
    if (s.upsampler == u) return s.name;
  return "";
}

std::optional<Upsampler> seen_upsampler(const CheckpointShape& shape) {
  if (shape.contains(kBicubic)) return Upsampler::pixelshuffle_aux;
  if (shape.contains(kFirstUp)) return Upsampler::nearest_conv;
  if (shape.contains(kBefore)) return Upsampler::pixelshuffle;
  if (shape.contains(kDirect)) return Upsampler::pixelshuffledirect;
  if (shape.contains(kLast)) return Upsampler::convolution;
  if (shape.known())
    throw Error("TensorNotFound", concat("checkpoint: there is no tensor \"", kLast.spellings.front(),
                                         "\" and none of another head"));
  return {};
}

Upsampler agreed_upsampler(const Value& config, const CheckpointShape& shape) {
  const std::optional<Upsampler> seen = seen_upsampler(shape);
  const Value* v = config.find("upsampler");
  if (v == nullptr && seen) return *seen;
  const std::string said = config.get_string("upsampler", "");
  for (const Spelling& s : kUpsamplers) {
    if (s.name != said) continue;
    if (seen && *seen != s.upsampler)
      throw Error("InvalidConfig",
                  concat("config: \"upsampler\" is \"", said, "\", but the checkpoint has the tensors of \"",
                         name_of(*seen), "\""));
    return s.upsampler;
  }
  unsupported("upsampler", said,
              "\"pixelshuffle\", \"pixelshuffledirect\", \"nearest+conv\", \"\", \"pixelshuffle_aux\"");
}

// Of a head that shuffles step by step, by 2 or once by 3.
std::optional<Index> shuffled_scale(const CheckpointShape& shape, Index inner) {
  if (!shape.known()) return {};
  Index scale = 1;
  for (Index k = 0;; ++k) {
    const std::string mine = concat("upsample.", 2 * k, ".weight"),
                      theirs = concat("upsample.upsample.convolution_", k, ".weight");
    const auto rows =
        shape.extent(k == 0 ? Names{mine.c_str(), theirs.c_str(), "upsample.upsample.convolution.weight"}
                            : Names{mine.c_str(), theirs.c_str()},
                     0);
    if (!rows) break;
    if ((*rows != 4 * inner || scale % 3 == 0) && (*rows != 9 * inner || k != 0))
      throw Error("InvalidShape", concat("checkpoint: tensor \"", mine, "\" has ", *rows,
                                         " rows, expected 4 or 9 times ", inner));
    scale *= *rows == 4 * inner ? 2 : 3;
    if (scale > 64) throw Error("InvalidShape", "checkpoint: the head enlarges more than 64 times");
  }
  return scale;
}

Index root_of(Index squared) {
  const auto root = static_cast<Index>(std::llround(std::sqrt(static_cast<double>(squared))));
  return root * root == squared ? root : 0;
}

ReconstructionConfig reconstruction_of(const Value& config, const CheckpointShape& shape, Index channels,
                                       const RestorationNames& names) {
  ReconstructionConfig c;
  c.channels = channels;
  c.upsampler = agreed_upsampler(config, shape);
  c.in_channels = agreed(config, {"in_chans", "num_channels", "num_in_ch"},
                         shape.extent(names.first.with(".weight"), 1), "the first convolution", 3);
  const auto last = shape.extent(kLast, 0);
  c.out_channels =
      agreed(config, {"num_channels_out", "num_out_ch"}, last, "the last convolution", c.in_channels);
  std::optional<Index> scale;
  if (c.upsampler == Upsampler::convolution) {
    scale = 1;
  } else if (c.upsampler == Upsampler::pixelshuffledirect) {
    if (const auto rows = shape.extent(kDirect, 0)) {
      const Index root = *rows % c.out_channels == 0 ? root_of(*rows / c.out_channels) : 0;
      if (root == 0)
        throw Error("InvalidShape", concat("checkpoint: the head has ", *rows,
                                           " rows, expected a square times ", c.out_channels, " channels"));
      scale = root;
    }
  } else {
    c.inner = agreed(config, {"num_feat"}, shape.extent(kBefore, 0), "the head's first convolution", 64);
    scale = c.upsampler != Upsampler::nearest_conv ? shuffled_scale(shape, c.inner)
            : shape.known()                        ? std::optional<Index>(shape.contains(kSecondUp) ? 4 : 2)
                                                   : std::nullopt;
  }
  c.scale = agreed(config, {"upscale", "scale"}, scale, "the head's tensors");
  const bool steps = c.inner != 0 && c.scale != 3;
  if (steps && (c.scale & (c.scale - 1)) != 0)
    unsupported(config.find("upscale") != nullptr ? "upscale" : "scale", std::to_string(c.scale),
                "a power of 2, or 3");
  if (c.upsampler == Upsampler::nearest_conv && c.scale != 2 && c.scale != 4)
    unsupported("upscale", std::to_string(c.scale), "2 or 4 with \"nearest+conv\"");
  if (c.upsampler == Upsampler::convolution && c.scale != 1)
    unsupported("upscale", std::to_string(c.scale), "1 without an upsampler");
  return c;
}

ResidualConvKind connection_of(const Value& config, const CheckpointShape& shape, const Names& conv) {
  const std::pair<std::string_view, ResidualConvKind> kinds[] = {{"1conv", ResidualConvKind::one},
                                                                 {"3conv", ResidualConvKind::three},
                                                                 {"identity", ResidualConvKind::identity}};
  const auto seen = !shape.known()                           ? std::optional<ResidualConvKind>()
                    : shape.contains(conv.with(".weight"))   ? ResidualConvKind::one
                    : shape.contains(conv.with(".0.weight")) ? ResidualConvKind::three
                                                             : ResidualConvKind::identity;
  if (given(config, "resi_connection") == nullptr) return seen.value_or(ResidualConvKind::one);
  const std::string said = config.get_string("resi_connection", "1conv");
  for (const auto& [name, kind] : kinds) {
    if (name != said) continue;
    if (seen && *seen != kind)
      throw Error("InvalidConfig",
                  concat("config: \"resi_connection\" is \"", said, "\", but the checkpoint's \"",
                         conv.spellings.front(), "\" is not so"));
    return kind;
  }
  unsupported("resi_connection", said, "\"1conv\", \"3conv\", \"identity\"");
}

}  // namespace

RestorationConfig RestorationConfig::from(const Value& config, const Parameters& parameters,
                                          const RestorationNames& names) {
  const CheckpointShape shape(parameters);
  RestorationConfig c;
  c.channels = agreed(config, {"embed_dim", "dim"}, shape.extent(names.first.with(".weight"), 0),
                      "the first convolution");
  const Value* depths = setting(config, {"depths", "depth"});
  const Value::Array* list = depths != nullptr ? depths->array() : nullptr;
  c.groups = shape.count(names.groups).value_or(list != nullptr ? static_cast<Index>(list->size()) : 0);
  c.reconstruction = reconstruction_of(config, shape, c.channels, names);
  c.connection = connection_of(config, shape, names.after_body);
  c.range = static_cast<float>(positive_number(config, "img_range", 1));
  const ReconstructionConfig& ends = c.reconstruction;
  const std::size_t channels = static_cast<std::size_t>(std::max(ends.in_channels, ends.out_channels));
  if (ends.in_channels == 3 && ends.out_channels == 3)
    c.mean = {0.4488f, 0.4371f, 0.4040f};  // of DIV2K
  else
    c.mean.assign(channels, 0.0f);
  return c;
}

RestorationInfo RestorationConfig::info() const {
  return {.architecture = architecture,
          .scale = reconstruction.scale,
          .in_channels = reconstruction.in_channels,
          .out_channels = reconstruction.out_channels};
}

}  // namespace v0
}  // namespace ashlar
