// SPDX-License-Identifier: Apache-2.0
// Networks for images in double, one pixel at a time: what the restoration models are compared with where
// there is no golden. Everything is written from the papers' equations, and reads a checkpoint by name.
#pragma once
#include <cmath>
#include <functional>
#include <map>

#include "ashlar/io/json.hpp"
#include "ashlar/models/restoration_model.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar::test::equations {

// An image [h, w, c].
struct Map {
  Index h = 0, w = 0, c = 0;
  std::vector<double> v;
  Map(Index rows, Index columns, Index channels)
      : h(rows), w(columns), c(channels), v(static_cast<std::size_t>(rows * columns * channels), 0.0) {}
  double& operator()(Index y, Index x, Index k) { return v[static_cast<std::size_t>((y * w + x) * c + k)]; }
  double operator()(Index y, Index x, Index k) const {
    return v[static_cast<std::size_t>((y * w + x) * c + k)];
  }
  template <class F>
  Map each(F&& f) const {
    Map out = *this;
    for (double& x : out.v) x = f(x);
    return out;
  }
  Map channels(Index begin, Index end) const {
    Map out(h, w, end - begin);
    for (Index i = 0; i < h * w; ++i)
      for (Index k = begin; k < end; ++k) out(0, i, k - begin) = (*this)(0, i, k);
    return out;
  }
};
inline Map added(const Map& a, const Map& b, double scale = 1) {
  Map out = a;
  for (std::size_t i = 0; i < out.v.size(); ++i) out.v[i] += scale * b.v[i];
  return out;
}
inline Map times(const Map& a, const Map& b) {
  Map out = a;
  for (std::size_t i = 0; i < out.v.size(); ++i) out.v[i] *= b.v[i];
  return out;
}
inline Map beside(const Map& a, const Map& b) {  // channels
  Map out(a.h, a.w, a.c + b.c);
  for (Index i = 0; i < a.h * a.w; ++i) {
    for (Index k = 0; k < a.c; ++k) out(0, i, k) = a(0, i, k);
    for (Index k = 0; k < b.c; ++k) out(0, i, a.c + k) = b(0, i, k);
  }
  return out;
}
inline double gelu(double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; }
inline double relu(double x) { return x < 0 ? 0 : x; }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline auto leaky(double slope) {
  return [slope](double x) { return x < 0 ? slope * x : x; };
}

// A key of window attention: where it is (outside the image it is zero), the row of the bias table, and what
// the mask adds.
struct Key {
  Index y, x, row;
  double mask = 0;
};

class Layers {
 public:
  Layers(const Parameters& parameters, std::string prefix = {})
      : parameters_(&parameters), prefix_(std::move(prefix)) {}
  Layers at(const std::string& name) const { return {*parameters_, prefix_ + name + "."}; }

  bool has(const std::string& name) const { return parameters_->contains(prefix_ + name); }
  std::vector<Index> shape(const std::string& name) const { return parameters_->at(prefix_ + name).shape; }
  std::vector<double> get(const std::string& name) const {
    const Tensor<float, 1> values = to_floats(parameters_->at(prefix_ + name));
    return {values.data(), values.data() + values.size()};
  }
  std::vector<double> get(const std::string& name, Index size) const {
    return has(name) ? get(name) : std::vector<double>(static_cast<std::size_t>(size), 0.0);
  }

  // A convolution with zeros around the image; also a linear layer of pixels, of two axes or flat.
  Map conv(const Map& x, const std::string& name, Index stride = 1, bool padded = true) const {
    std::vector<Index> s = shape(name + ".weight");
    if (s.size() == 1) s = {s[0] / x.c, x.c};
    const Index kh = s.size() == 4 ? s[2] : 1, kw = s.size() == 4 ? s[3] : 1, inputs = s[1];
    const std::vector<double> weight = get(name + ".weight"), bias = get(name + ".bias", s[0]);
    const Index ph = padded ? kh / 2 : 0, pw = padded ? kw / 2 : 0, each = s[0] / (x.c / inputs);
    Map out((x.h + 2 * ph - kh) / stride + 1, (x.w + 2 * pw - kw) / stride + 1, s[0]);
    for (Index y = 0; y < out.h; ++y)
      for (Index z = 0; z < out.w; ++z)
        for (Index o = 0; o < s[0]; ++o) {
          double sum = bias[static_cast<std::size_t>(o)];
          for (Index r = 0; r < kh; ++r)
            for (Index t = 0; t < kw; ++t) {
              const Index i = y * stride - ph + r, j = z * stride - pw + t;
              if (i < 0 || i >= x.h || j < 0 || j >= x.w) continue;
              for (Index k = 0; k < inputs; ++k)
                sum += weight[static_cast<std::size_t>(((o * inputs + k) * kh + r) * kw + t)] *
                       x(i, j, o / each * inputs + k);
            }
          out(y, z, o) = sum;
        }
    return out;
  }
  Map norm(const Map& x, const std::string& name) const {
    const std::vector<double> weight = get(name + ".weight"), bias = get(name + ".bias");
    Map out = x;
    for (Index i = 0; i < x.h * x.w; ++i) {
      double mean = 0, var = 0;
      for (Index k = 0; k < x.c; ++k) mean += x(0, i, k) / static_cast<double>(x.c);
      for (Index k = 0; k < x.c; ++k)
        var += (x(0, i, k) - mean) * (x(0, i, k) - mean) / static_cast<double>(x.c);
      for (Index k = 0; k < x.c; ++k)
        out(0, i, k) = (x(0, i, k) - mean) / std::sqrt(var + 1e-5) * weight[static_cast<std::size_t>(k)] +
                       bias[static_cast<std::size_t>(k)];
    }
    return out;
  }
  Map mlp(const Map& x) const { return conv(conv(x, "mlp.fc1").each(gelu), "mlp.fc2"); }

 private:
  const Parameters* parameters_;
  std::string prefix_;
};

// Softmax attention of each pixel to its keys, with a table [rows, heads] of biases where it has one.
inline Map attend(const Map& q, const Map& k, const Map& v, Index heads, double scale,
                  const std::vector<double>& table,
                  const std::function<std::vector<Key>(Index, Index)>& keys_of) {
  const Index dk = q.c / heads, dv = v.c / heads;
  Map out(q.h, q.w, v.c);
  for (Index y = 0; y < q.h; ++y)
    for (Index x = 0; x < q.w; ++x) {
      const std::vector<Key> keys = keys_of(y, x);
      for (Index h = 0; h < heads; ++h) {
        std::vector<double> s;
        double top = -INFINITY, sum = 0;
        for (const Key& key : keys) {
          double dot = 0;
          for (Index i = 0; key.y >= 0 && i < dk; ++i)
            dot += q(y, x, h * dk + i) * k(key.y, key.x, h * dk + i);
          s.push_back(scale * dot + key.mask +
                      (table.empty() ? 0 : table[static_cast<std::size_t>(key.row * heads + h)]));
          top = std::max(top, s.back());
        }
        for (double& e : s) e = std::exp(e - top), sum += e;
        for (std::size_t m = 0; m < keys.size(); ++m)
          for (Index i = 0; keys[m].y >= 0 && i < dv; ++i)
            out(y, x, h * dv + i) += s[m] / sum * v(keys[m].y, keys[m].x, h * dv + i);
      }
    }
  return out;
}

// The keys of the pixel at (y, x) in windows [wh, ww], shifted, of an image that counts as [hp, wp].
inline std::vector<Key> window_keys(Index y, Index x, Index h, Index w, Index wh, Index ww, Index sh,
                                    Index sw, Index hp, Index wp) {
  const auto region = [](Index at, Index length, Index window, Index shift) {
    return at < length - window ? 0 : at < length - shift ? 1 : 2;
  };
  const auto id = [&](Index r, Index c) { return 3 * region(r, hp, wh, sh) + region(c, wp, ww, sw); };
  const Index ry = (y - sh + hp) % hp, rx = (x - sw + wp) % wp;
  std::vector<Key> keys;
  for (Index i = 0; i < wh; ++i)
    for (Index j = 0; j < ww; ++j) {
      const Index ky = ry / wh * wh + i, kx = rx / ww * ww + j;
      Key key{(ky + sh) % hp, (kx + sw) % wp, (ry % wh - i + wh - 1) * (2 * ww - 1) + rx % ww - j + ww - 1};
      if (key.y >= h || key.x >= w) key.y = -1;
      if ((sh != 0 || sw != 0) && id(ry, rx) != id(ky, kx)) key.mask = -100;
      keys.push_back(key);
    }
  return keys;
}

// Shifted-window self-attention of Swin, with a learned table.
inline Map swin_attention(const Layers& n, const Map& x, Index window, Index shift) {
  const Map qkv = n.conv(x, "qkv");
  const Index heads = n.shape("relative_position_bias_table")[1];
  const Map out = attend(
      qkv.channels(0, x.c), qkv.channels(x.c, 2 * x.c), qkv.channels(2 * x.c, 3 * x.c), heads,
      1 / std::sqrt(static_cast<double>(x.c / heads)), n.get("relative_position_bias_table"),
      [&](Index y, Index z) { return window_keys(y, z, x.h, x.w, window, window, shift, shift, x.h, x.w); });
  return n.conv(out, "proj");
}

// The frame of the networks: an image [0, 1] through `deep`, which is what follows the first convolution up
// to the head, with a head that shuffles by 2 or 3 step by step.
struct Frame {
  std::string first = "conv_first";
  double range = 1;
  std::vector<double> mean{0.4488, 0.4371, 0.4040};
};
inline Map shuffled(const Map& x, Index by) {
  Map out(by * x.h, by * x.w, x.c / by / by);
  for (Index y = 0; y < out.h; ++y)
    for (Index z = 0; z < out.w; ++z)
      for (Index c = 0; c < out.c; ++c) out(y, z, c) = x(y / by, z / by, c * by * by + y % by * by + z % by);
  return out;
}
template <class F>
Map framed(const Layers& n, const Map& image, const Frame& f, Index scale, F&& deep) {
  Map x = image;
  for (Index i = 0; i < x.h * x.w; ++i)
    for (Index c = 0; c < x.c; ++c) x(0, i, c) = (x(0, i, c) - f.mean[static_cast<std::size_t>(c)]) * f.range;
  x = n.conv(x, f.first);
  x = added(deep(x), x);
  x = n.conv(x, "conv_before_upsample.0").each(leaky(0.01));
  for (Index s = scale, i = 0; s > 1; ++i) {
    const Index by = s % 3 == 0 ? 3 : 2;
    x = shuffled(n.conv(x, concat("upsample.", 2 * i)), by);
    s /= by;
  }
  x = n.conv(x, "conv_last");
  for (Index i = 0; i < x.h * x.w; ++i)
    for (Index c = 0; c < x.c; ++c) x(0, i, c) = x(0, i, c) / f.range + f.mean[static_cast<std::size_t>(c)];
  return x;
}

// Random weights for whatever a model asks for, kept: a checkpoint. Biases are there where they must be.
class Recorded : public ParameterSource {
 public:
  Recorded() : random_(DType::f32, 11, [](std::string_view name) { return !name.ends_with("bias"); }) {}
  std::vector<std::string> names() const override { return {}; }
  bool find(std::string_view name, Parameter* into) const override { return random_.find(name, into); }
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    const Parameter p = random_.make(name, shape);
    made_.set(std::string(name), p);
    return p;
  }
  ParameterMap& checkpoint() const { return made_; }

 private:
  RandomParameters random_;
  mutable ParameterMap made_;
};

inline Tensor<float, 4> random_image(Index n, Index h, Index w, Index c) {
  Tensor<float, 4> image({n, h, w, c});
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> u(0, 1);
  for (Index i = 0; i < image.size(); ++i) image.data()[i] = u(rng);
  return image;
}

// Image `n` with pixels reflected up to multiples of `multiple`, in double.
inline Map padded(const Tensor<float, 4>& image, Index n, Index multiple) {
  const auto [images, h, w, c] = image.shape();
  Map out((h + multiple - 1) / multiple * multiple, (w + multiple - 1) / multiple * multiple, c);
  for (Index y = 0; y < out.h; ++y)
    for (Index x = 0; x < out.w; ++x)
      for (Index k = 0; k < c; ++k)
        out(y, x, k) = image.view()(n, y < h ? y : 2 * h - 2 - y, x < w ? x : 2 * w - 2 - x, k);
  return out;
}

// The model of random weights with the whole configuration, and once more from them as a checkpoint with what
// of the configuration a checkpoint does not tell: the same bits, for one thread and several, for an image
// alone and in a batch; and within 1e-4 of the largest value of what `reference` says of each padded image.
template <class F>
void expect_reference(const std::string& architecture, const std::string& whole, const std::string& rest,
                      std::array<Index, 2> size, F&& reference,
                      const std::function<void(ParameterMap&)>& more = {}) {
  CpuExec one({1}), three({3});
  const Recorded random;
  const Value config = parse_json(whole, "whole"), partial = parse_json(rest, "rest");
  const auto made = load_restoration_model(config, random, one, {.architecture = architecture});
  if (more) more(random.checkpoint());
  const auto model = load_restoration_model(partial, random.checkpoint(), one);
  EXPECT_EQ(model->info().architecture, architecture);
  EXPECT_EQ(model->info().parameters, made->info().parameters);
  const auto [h, w] = size;
  const Tensor<float, 4> image = random_image(2, h, w, model->info().in_channels);
  const Index scale = model->scale();
  Tensor<float, 4> out({2, scale * h, scale * w, model->info().out_channels}), again(out.shape());
  std::fill_n(out.data(), out.size(), std::nanf(""));
  model->run(image.view(), out.view(), one);
  made->run(image.view(), again.view(), three);
  expect_close(again.view(), View<const float, 4>(out.view()), [](Index) { return 0; });
  for (Index n = 0; n < 2; ++n)
    model->run(image.view().slice(0, n, n + 1), again.view().slice(0, n, n + 1), three);
  expect_close(again.view(), View<const float, 4>(out.view()), [](Index) { return 0; });
  const Layers layers(random.checkpoint());
  for (Index n = 0; n < 2; ++n) {
    const Map want = reference(layers, padded(image, n, model->info().multiple));
    double top = 0;
    for (double x : want.v) top = std::max(top, std::abs(x));
    for (Index y = 0; y < scale * h; ++y)
      for (Index x = 0; x < scale * w; ++x)
        for (Index c = 0; c < want.c; ++c)
          ASSERT_NEAR(out.view()(n, y, x, c), want(y, x, c), 1e-4 * top) << y << ", " << x << ", " << c;
  }
}

}  // namespace ashlar::test::equations
