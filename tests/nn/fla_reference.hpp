// SPDX-License-Identifier: Apache-2.0
// What the layers of flash-linear-attention are made of, in double, by the reference equations.
#pragma once
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ref/decay_gate.hpp"
#include "ashlar/ref/linear_recurrence.hpp"
#include "ashlar/ref/norm.hpp"
#include "ashlar/ref/short_conv.hpp"
#include "tests/nn/reference.hpp"

namespace ashlar::test {

// [T, C] in double.
struct Rows {
  Rows(Index rows, Index columns) : shape{rows, columns}, values(std::size_t(rows * columns)) {}
  explicit Rows(const Matrix& m) : Rows(Index(m.size()), Index(m[0].size())) {
    for (std::size_t t = 0; t < m.size(); ++t)
      std::copy(m[t].begin(), m[t].end(), values.begin() + std::ptrdiff_t(t * m[0].size()));
  }
  View<double, 2> view() { return {values.data(), shape}; }
  View<double, 3> heads(Index dim) { return view().split(1, dim); }
  // With `n` rows in each of these: sub-steps.
  View<double, 3> steps(Index n, Index dim) {
    return View<double, 2>(values.data(), {shape[0] * n, shape[1] / n}).split(1, dim);
  }
  Matrix matrix() {
    Matrix m;
    for (Index t = 0; t < shape[0]; ++t) m.emplace_back(view().at(t), view().at(t) + shape[1]);
    return m;
  }
  std::array<Index, 2> shape;
  Vector values;
};

// The layer of the weights, on one sequence x.
class Layer {
 public:
  Layer(const Weights& w, const Matrix& x) : w_(w), x_(x) {}

  Index tokens() const { return x_.shape[0]; }
  Rows& x() { return x_; }
  Vector vector(const std::string& name, Index n) const { return w_.flat(name.c_str(), {n}); }

  // W y + b
  Rows linear(const std::string& name, Rows y, Index out, bool biased = false) const {
    const Matrix weight = w_.matrix((name + ".weight").c_str(), out, y.shape[1]);
    const Vector bias = biased ? vector(name + ".bias", out) : Vector(std::size_t(out));
    Rows result(y.shape[0], out);
    for (Index t = 0; t < y.shape[0]; ++t) {
      const Vector row = times(weight, Vector(y.view().at(t), y.view().at(t) + y.shape[1]));
      for (Index i = 0; i < out; ++i) result.view()(t, i) = row[std::size_t(i)] + bias[std::size_t(i)];
    }
    return result;
  }
  // f(conv(W x) + b), or f(W x)
  Rows convolved(const std::string& name, Index out, const ConvConfig& conv, Activation f) {
    Rows y = linear(name + "_proj", x_, out);
    if (conv.width != 0) {
      Vector weight = w_.flat((name + "_conv1d.weight").c_str(), {out, 1, conv.width});
      Vector bias = conv.biased ? vector(name + "_conv1d.bias", out) : Vector();
      Rows mixed(y.shape[0], out);
      ref::short_conv(ShortConvArgs<double>{
          y.view(),
          {weight.data(), {out, conv.width}},
          conv.biased ? View<const double, 1>(bias.data(), {out}) : View<const double, 1>(),
          mixed.view(),
          Activation::identity});
      y = mixed;
    }
    return map(f, y);
  }
  static Rows map(Activation f, Rows y, double scale = 1) {
    for (double& e : y.values) e = scale * ref::activation(f, e);
    return y;
  }
  static Rows l2(Rows y, Index dim) {
    ref::l2_norm(L2NormArgs<double>{y.heads(dim), y.heads(dim), 1e-6});
    return y;
  }
  // From the zero state.
  template <class Args>
  static void recur(Args& args, Rows& out, Index dim) {
    args.out = out.heads(dim);
    Tensor<double, 4> state({1, args.out.shape[1], args.k.shape[2], dim + (args.normalize ? 1 : 0)});
    ref::linear_recurrence(args, state.view());
  }
  // W_o (norm(o) f(gate)); no name: no weight; no gate: none.
  Matrix output(Rows o, Index dim, const char* norm, double eps, Rows* gate = nullptr,
                Activation f = Activation::silu) {
    const Vector weight = norm != nullptr ? vector(norm, dim) : Vector(std::size_t(dim), 1);
    RmsNormArgs<double> args{o.heads(dim), {weight.data(), {dim}}, o.heads(dim), eps};
    if (gate != nullptr) args.gate = gate->heads(dim), args.gate_activation = f;
    ref::rms_norm(args);
    return linear("o_proj", o, x_.shape[1]).matrix();
  }

 private:
  const Weights& w_;
  Rows x_;
};

// The mixer of the weights against `want` in every way; positions are those of the tokens in their sequences.
template <class Make>
void check_mixer(const Weights& w, Array<2>& x, const Matrix& want, Make&& make) {
  for (CpuExec& exec : contexts()) {
    const std::unique_ptr<Mixer<CpuExec>> mixer = make(ParameterReader<CpuExec>(w.source(), exec));
    check_every_way(
        x, want, 300 * kEps * largest(want), [&] { return mixer->new_state(64); },
        [&](auto in, auto out, SequenceBatch<CpuExec> batch) {
          std::vector<Index> positions;
          for (Index n = 0; n < batch.offsets.count(); ++n) {
            Index seen = batch.states.empty() ? 0 : batch.states[std::size_t(n)]->recurrent.position();
            for (Index t = batch.offsets.begin(n); t < batch.offsets.end(n, in.shape[0]); ++t)
              positions.push_back(seen++);
          }
          batch.positions = {positions.data(), {in.shape[0]}};
          (*mixer)(in, out, batch, exec);
        });
  }
}

}  // namespace ashlar::test
