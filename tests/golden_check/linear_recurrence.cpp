// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <set>

#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-6, kHardBound = 1e-6;  // the mechanism's own, tighter than an operation's 2e-5

using Member = void (*)(const LinearRecurrence& args, CpuExec& exec);

// The inputs of one case, by name; null: not given.
struct Case {
  const char* name;
  Member run;
  const char *q = "q", *k = "k", *v = "v", *s0 = "s0";
  const char *g = nullptr, *gk = nullptr, *beta = nullptr, *a = nullptr, *b = nullptr, *bonus = nullptr;
  const char* z0 = nullptr;  // normalised, from this
  float scale = 0;
};
constexpr Case kCases[] = {
    {.name = "linear", .run = linear_attention},
    {.name = "linear_norm", .run = linear_attention, .q = "elu1_q", .k = "elu1_k", .z0 = "z0"},
    {.name = "retnet", .run = retention, .g = "retnet_g"},
    {.name = "lightning_fla", .run = lightning_attention, .g = "lightning_fla_g"},
    {.name = "lightning_minimax", .run = lightning_attention, .g = "lightning_minimax_g", .scale = 1},
    {.name = "simple_gla", .run = simple_gla, .g = "g"},
    {.name = "simple_gla_hard", .run = simple_gla, .g = "hard_g"},
    {.name = "gla", .run = gla, .gk = "gk"},
    {.name = "gla_nos0", .run = gla, .s0 = nullptr, .gk = "gk"},
    {.name = "gla_hard", .run = gla, .gk = "hard_gk"},
    {.name = "gla_gqa", .run = gla, .q = "gqa_q", .s0 = nullptr, .gk = "gk"},
    {.name = "rwkv6", .run = rwkv6, .gk = "gk", .bonus = "u"},
    {.name = "rwkv6_hard", .run = rwkv6, .gk = "hard_gk", .bonus = "u"},
    {.name = "delta", .run = delta_rule, .q = "qn", .k = "kn", .beta = "beta"},
    {.name = "gated_delta", .run = gated_delta_rule, .q = "qn", .k = "kn", .g = "g", .beta = "beta"},
    {.name = "gated_delta_hard",
     .run = gated_delta_rule,
     .q = "qn",
     .k = "kn",
     .g = "hard_g",
     .beta = "beta"},
    {.name = "gated_delta_gva_negeig",
     .run = gated_delta_rule,
     .q = "qn",
     .k = "kn",
     .v = "gva_v",
     .s0 = "gva_s0",
     .g = "gva_g",
     .beta = "gva_beta"},
    {.name = "kda", .run = kda, .q = "qn", .k = "kn", .gk = "gk", .beta = "beta"},
    {.name = "kda_hard", .run = kda, .q = "qn", .k = "kn", .gk = "hard_gk", .beta = "beta"},
    {.name = "kda_gva",
     .run = kda,
     .q = "qn",
     .k = "kn",
     .v = "gva_v",
     .s0 = "gva_s0",
     .gk = "gva_gk",
     .beta = "gva_beta"},
    {.name = "delta_product",
     .run = gated_delta_product,
     .q = "qn",
     .k = "dp_k",
     .v = "dp_v",
     .beta = "dp_beta"},
    {.name = "gated_delta_product",
     .run = gated_delta_product,
     .q = "qn",
     .k = "dp_k",
     .v = "dp_v",
     .g = "g",
     .beta = "dp_beta"},
    {.name = "rwkv7", .run = rwkv7, .gk = "rwkv7_w", .a = "rwkv7_a", .b = "rwkv7_b"},
    {.name = "dplr", .run = linear_recurrence, .gk = "gk", .a = "dplr_a", .b = "dplr_b"},
    {.name = "dplr_hard", .run = linear_recurrence, .gk = "hard_gk", .a = "rwkv7_a", .b = "rwkv7_b"},
};

// An input of the golden: [B, T, ...] as rows of tokens, or what has no batch as it is.
struct Input {
  Tensor<float, 1> values;
  std::vector<Index> shape;

  View<const float, 3> rows3() const {
    return values ? View<const float, 3>{values.data(), {shape[0] * shape[1], shape[2], shape[3]}}
                  : View<const float, 3>();
  }
  // One a token and head; or one a head, the same for each of `tokens`.
  View<const float, 2> rows2(Index tokens) const {
    if (!values) return {};
    if (shape.size() == 1) return constant_decay(values.view(), tokens);
    return {values.data(), {shape[0] * shape[1], shape[2]}};
  }
};

class Checker {
 public:
  Checker(const Parameters& golden, Report& report) : golden_(golden), report_(report) {
    const auto v = golden.at("input.v").shape;
    batch_ = v[0], tokens_ = v[1];
  }

  void run(const Case& c) {
    const Input q = input(c.q), k = input(c.k), v = input(c.v), g = input(c.g), gk = input(c.gk),
                beta = input(c.beta), a = input(c.a), b = input(c.b), bonus = input(c.bonus);
    LinearRecurrence args{q.rows3(), k.rows3(), v.rows3()};
    args.g = g.rows2(batch_ * tokens_), args.gk = gk.rows3(), args.beta = beta.rows2(0);
    args.a = a.rows3(), args.b = b.rows3(), args.scale = c.scale;
    if (bonus.values) args.bonus = {bonus.values.data(), {bonus.shape[0], bonus.shape[1]}};
    args.substeps = k.shape[1] / tokens_;
    args.normalize = c.z0 != nullptr;
    const Index heads = std::max(q.shape[2], v.shape[2]);
    recur(c.name, c.run, args, heads, input(c.s0), input(c.z0), [](Tensor<float, 3>&) {});
  }

  // The recurrence on dt x, with D x added to its output.
  void run_mamba2() {
    const Input x = input("gva_v"), raw = input("ssd_dt"), bias = input("ssd_dt_bias"), skip = input("ssd_D"),
                a_log = input("ssd_A_log"), q = input("q"), k = input("k");
    const Index heads = skip.shape[0], rows = batch_ * tokens_, dv = x.shape[3];
    Tensor<float, 3> v({rows, heads, dv});
    Tensor<float, 2> g({rows, heads});
    decay_gate(DecayGate{raw.rows2(0), a_log.values.view(), bias.values.view(), g.view()}, exec_);
    for (Index i = 0; i < v.size(); ++i) {
      const Index row = i / dv;  // of [T, H]
      const double dt =
          std::log1p(std::exp(static_cast<double>(raw.values.data()[row]) + bias.values.data()[row % heads]));
      v.data()[i] = static_cast<float>(x.values.data()[i] * dt);
    }
    LinearRecurrence args{q.rows3(), k.rows3(), v.view(), g.view()};
    recur("mamba2_ssd", mamba2_ssd, args, heads, input("gva_s0"), {}, [&](Tensor<float, 3>& out) {
      for (Index i = 0; i < out.size(); ++i)
        out.data()[i] += skip.values.data()[i / dv % heads] * x.values.data()[i];
    });
  }

  bool has(const char* name) const { return golden_.contains(concat("output.", name, ".o")); }

  void skip_the_rest() {
    std::set<std::string> seen;
    for (const std::string& name : golden_.names()) {
      if (!name.starts_with("output.")) continue;
      const std::string kind = name.substr(7, name.find('.', 7) - 7);
      if (!done_.contains(kind) && seen.insert(kind).second) report_.skip("linear-recurrence-family", kind);
    }
  }

 private:
  Input input(const char* name) const {
    if (name == nullptr) return {};
    const std::string key = concat("input.", name);
    const auto shape = golden_.at(key).shape;
    return {floats(golden_, key), {shape.begin(), shape.end()}};
  }

  // In the form that is chosen and in the chunk form; `finish` is what the mixer does to the output.
  template <class Finish>
  void recur(const std::string& name, Member member, LinearRecurrence args, Index heads, const Input& s0,
             const Input& z0, Finish&& finish) {
    const Index dk = args.k.shape[2], dv = args.v.shape[2], columns = dv + (args.normalize ? 1 : 0);
    std::vector<Index> starts{0};
    std::vector<RecurrentState> begin;
    for (Index n = 0; n < batch_; ++n) {
      starts.push_back(starts.back() + tokens_);
      RecurrentState& s = begin.emplace_back(heads, dk, columns);
      Tensor<float, 3> values({heads, dk, columns});
      for (Index i = 0; i < heads * dk; ++i)
        for (Index j = 0; j < columns; ++j) {
          const Index row = n * heads * dk + i;
          const Input& from = j < dv ? s0 : z0;
          values.data()[i * columns + j] = !from.values ? 0
                                           : j < dv     ? from.values.data()[row * dv + j]
                                                        : from.values.data()[row];
        }
      s.import_from(values.view());
    }
    args.offsets = starts;
    for (const RecurrenceForm form : {RecurrenceForm::automatic, RecurrenceForm::chunk}) {
      std::vector<RecurrentState> states = begin;
      std::vector<RecurrentState*> pointers;
      for (RecurrentState& s : states) pointers.push_back(&s);
      Tensor<float, 3> out({batch_ * tokens_, heads, dv});
      args.states = pointers, args.form = form, args.out = out.view();
      member(args, exec_);
      finish(out);
      const char* suffix = form == RecurrenceForm::chunk ? "(chunk)" : "";
      compare(name, "o", suffix, out.data(), out.size());

      Tensor<float, 1> s({batch_ * heads * dk * dv}), z({batch_ * heads * dk});
      Tensor<float, 3> values({heads, dk, columns});
      for (Index n = 0; n < batch_; ++n) {
        states[static_cast<std::size_t>(n)].export_to(values.view());
        for (Index i = 0; i < heads * dk; ++i)
          for (Index j = 0; j < columns; ++j) {
            const Index row = n * heads * dk + i;
            (j < dv ? s.data()[row * dv + j] : z.data()[row]) = values.data()[i * columns + j];
          }
      }
      compare(name, "s", suffix, s.data(), s.size());
      if (args.normalize) compare(name, "z", suffix, z.data(), z.size());
    }
  }

  void compare(const std::string& name, const char* output, const char* suffix, const float* got, Index n) {
    done_.insert(name);
    report_.compare("linear-recurrence-family", concat(name, ".", output, suffix), got, n,
                    floats(golden_, concat("output.", name, ".", output)),
                    name.ends_with("_hard") ? kHardBound : kBound);
  }

  const Parameters& golden_;
  Report& report_;
  CpuExec exec_;
  Index batch_, tokens_;
  std::set<std::string> done_;
};

const Runner kRunner{"linear-recurrence-family",
                     "linear-recurrence-family.safetensors; what has no op is skipped",
                     [](const Path& path) {
                       return path.stem() == "linear-recurrence-family" && path.extension() == ".safetensors";
                     },
                     [](const Path& path, Report& report) {
                       const SafetensorsFile golden(path.string());
                       Checker checker(golden, report);
                       for (const Case& c : kCases)
                         if (checker.has(c.name)) checker.run(c);
                       if (checker.has("mamba2_ssd")) checker.run_mamba2();
                       checker.skip_the_rest();
                     }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
