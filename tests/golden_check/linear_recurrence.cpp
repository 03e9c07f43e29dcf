// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <map>
#include <set>

#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_recurrence.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-6, kHardBound = 1e-6;  // the mechanism's own, tighter than an operation's 2e-5

// Inputs of one case, by name; empty: not given.
struct Case {
  const char* name;
  const char *q, *k, *v, *g, *beta, *s0;
  float scale = 0;
};
constexpr Case kCases[] = {
    {"linear", "q", "k", "v", "", "", "s0"},
    {"retnet", "q", "k", "v", "retnet_g", "", "s0"},
    {"lightning_fla", "q", "k", "v", "lightning_fla_g", "", "s0"},
    {"lightning_minimax", "q", "k", "v", "lightning_minimax_g", "", "s0", 1},
    {"simple_gla", "q", "k", "v", "g", "", "s0"},
    {"simple_gla_hard", "q", "k", "v", "hard_g", "", "s0"},
    {"delta", "qn", "kn", "v", "", "beta", "s0"},
    {"gated_delta", "qn", "kn", "v", "g", "beta", "s0"},
    {"gated_delta_hard", "qn", "kn", "v", "hard_g", "beta", "s0"},
    {"gated_delta_gva_negeig", "qn", "kn", "gva_v", "gva_g", "gva_beta", "gva_s0"},
    {"delta_product", "qn", "dp_k", "dp_v", "", "dp_beta", "s0"},
    {"gated_delta_product", "qn", "dp_k", "dp_v", "g", "dp_beta", "s0"},
};

class Checker {
 public:
  Checker(const Parameters& golden, Report& report) : golden_(golden), report_(report) {
    const auto v = golden.at("input.v").shape, k = golden.at("input.k").shape;
    batch_ = v[0], tokens_ = v[1], key_heads_ = k[2], key_dim_ = k[3], value_dim_ = v[3];
  }

  void run(const Case& c) {
    const Tensor<float, 1> v = input(c.v), k = input(c.k), s0 = input(c.s0);
    const Index heads = golden_.at(concat("input.", c.v)).shape[2];
    // A product of delta rules is one over a sequence of sub-steps, decayed at the first and read at the
    // last.
    const Index steps = golden_.at(concat("input.", c.k)).shape[1] / tokens_;
    const Tensor<float, 1> q = spread(input(c.q), key_heads_ * key_dim_, steps, steps - 1);
    const Tensor<float, 1> g =
        *c.g != '\0' ? spread(a_token(input(c.g), heads), heads, steps, 0) : Tensor<float, 1>();
    const Tensor<float, 1> beta = *c.beta != '\0' ? input(c.beta) : Tensor<float, 1>();
    const Tensor<float, 1> out = recur(c.name, q, k, v, g, beta, s0, heads, steps, c.scale);
    compare(c.name, "o", gathered(out, heads * value_dim_, steps, steps - 1));
  }

  // Mamba-2: the recurrence without transition on dt x, with D x added to its output.
  void run_mamba2() {
    const Tensor<float, 1> x = input("gva_v"), raw = input("ssd_dt"), bias = input("ssd_dt_bias"),
                           skip = input("ssd_D");
    const Tensor<float, 1> a_log = input("ssd_A_log"), s0 = input("gva_s0");
    const Index heads = skip.size(), rows = batch_ * tokens_;
    Tensor<float, 1> v({x.size()}), g({rows * heads});
    decay_gate(DecayGate{{raw.data(), {rows, heads}}, a_log.view(), bias.view(), {g.data(), {rows, heads}}},
               exec_);
    for (Index i = 0; i < x.size(); ++i) {
      const Index row = i / value_dim_;  // of [T, H]
      v.data()[i] = x.data()[i] * static_cast<float>(std::log1p(std::exp(
                                      static_cast<double>(raw.data()[row]) + bias.data()[row % heads])));
    }
    Tensor<float, 1> out = recur("mamba2_ssd", input("q"), input("k"), v, g, {}, s0, heads, 1, 1);
    for (Index i = 0; i < out.size(); ++i) out.data()[i] += skip.data()[i / value_dim_ % heads] * x.data()[i];
    compare("mamba2_ssd", "o", out);
  }

  void skip_the_rest() {
    std::set<std::string> seen;
    for (const std::string& name : golden_.names()) {
      if (!name.starts_with("output.")) continue;
      const std::string kind = name.substr(7, name.find('.', 7) - 7);
      if (!done_.contains(kind) && seen.insert(kind).second) report_.skip("linear-recurrence-family", kind);
    }
  }

 private:
  Tensor<float, 1> input(const char* name) const { return floats(golden_, concat("input.", name)); }

  // A decay a head, the same for each token, or already one a token and head.
  Tensor<float, 1> a_token(Tensor<float, 1> g, Index heads) const {
    if (g.size() != heads) return g;
    Tensor<float, 1> all({batch_ * tokens_ * heads});
    for (Index i = 0; i < all.size(); ++i) all.data()[i] = g.data()[i % heads];
    return all;
  }
  // Rows of tokens as rows of sub-steps, at place `at` of each token's, zeros elsewhere; and back.
  static Tensor<float, 1> spread(const Tensor<float, 1>& x, Index row, Index steps, Index at) {
    Tensor<float, 1> wide({x.size() * steps});
    for (Index i = 0; i < x.size(); ++i) wide.data()[(i / row * steps + at) * row + i % row] = x.data()[i];
    return wide;
  }
  static Tensor<float, 1> gathered(const Tensor<float, 1>& wide, Index row, Index steps, Index at) {
    Tensor<float, 1> x({wide.size() / steps});
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = wide.data()[(i / row * steps + at) * row + i % row];
    return x;
  }

  Tensor<float, 1> recur(const char* name, const Tensor<float, 1>& q, const Tensor<float, 1>& k,
                         const Tensor<float, 1>& v, const Tensor<float, 1>& g, const Tensor<float, 1>& beta,
                         const Tensor<float, 1>& s0, Index heads, Index steps, float scale) {
    const Index rows = batch_ * tokens_ * steps, state_size = heads * key_dim_ * value_dim_;
    std::vector<RecurrentState> states(static_cast<std::size_t>(batch_),
                                       RecurrentState(heads, key_dim_, value_dim_));
    std::vector<RecurrentState*> pointers;
    std::vector<Index> starts{0};
    for (RecurrentState& s : states) {
      s.import_from(
          {s0.data() + static_cast<Index>(pointers.size()) * state_size, {heads, key_dim_, value_dim_}});
      pointers.push_back(&s), starts.push_back(starts.back() + tokens_ * steps);
    }
    Tensor<float, 1> out({v.size()}), final({batch_ * state_size});
    LinearRecurrence args{{q.data(), {rows, key_heads_, key_dim_}},
                          {k.data(), {rows, key_heads_, key_dim_}},
                          {v.data(), {rows, heads, value_dim_}},
                          {},
                          {},
                          {out.data(), {rows, heads, value_dim_}},
                          scale,
                          starts,
                          pointers};
    if (g) args.g = {g.data(), {rows, heads}};
    if (beta) args.beta = {beta.data(), {rows, heads}};
    linear_recurrence(args, exec_);
    for (std::size_t n = 0; n < states.size(); ++n)
      states[n].export_to({final.data() + static_cast<Index>(n) * state_size, {heads, key_dim_, value_dim_}});
    compare(name, "s", final);
    return out;
  }

  void compare(const std::string& name, const std::string& output, const Tensor<float, 1>& got) {
    done_.insert(name);
    report_.compare("linear-recurrence-family", concat(name, ".", output), got.data(), got.size(),
                    floats(golden_, concat("output.", name, ".", output)),
                    name.ends_with("_hard") ? kHardBound : kBound);
  }

  const Parameters& golden_;
  Report& report_;
  CpuExec exec_;
  Index batch_, tokens_, key_heads_, key_dim_, value_dim_;
  std::set<std::string> done_;
};

const Runner kRunner{"linear-recurrence-family",
                     "linear-recurrence-family.safetensors; families without an op are skipped",
                     [](const Path& path) {
                       return path.stem() == "linear-recurrence-family" && path.extension() == ".safetensors";
                     },
                     [](const Path& path, Report& report) {
                       const SafetensorsFile golden(path.string());
                       Checker checker(golden, report);
                       for (const Case& c : kCases)
                         if (golden.contains(concat("output.", c.name, ".o"))) checker.run(c);
                       if (golden.contains("output.mamba2_ssd.o")) checker.run_mamba2();
                       checker.skip_the_rest();
                     }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
