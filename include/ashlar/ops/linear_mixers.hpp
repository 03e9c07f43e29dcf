// SPDX-License-Identifier: Apache-2.0
// The members of the linear recurrence's family under the names that the literature gives them. Each is
// linear_recurrence with some arguments required, the others refused, and the scale that its authors use
// where they use another than Dk^-1/2.
#pragma once
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// What a member takes beside q, k, v and out.
struct RecurrenceMember {
  std::string_view name;
  bool g = false, gk = false, beta = false, low_rank = false, bonus = false, substeps = false,
       normalize = false;
  bool unit_scale = false, g_optional = false;
};

inline constexpr RecurrenceMember kLinearAttention{.name = "linear_attention", .normalize = true};
inline constexpr RecurrenceMember kRetention{.name = "retention", .g = true};
inline constexpr RecurrenceMember kLightningAttention{.name = "lightning_attention", .g = true};
inline constexpr RecurrenceMember kSimpleGla{.name = "simple_gla", .g = true};
inline constexpr RecurrenceMember kGla{.name = "gla", .gk = true};
inline constexpr RecurrenceMember kHgrn2{.name = "hgrn2", .gk = true};
inline constexpr RecurrenceMember kMamba2Ssd{.name = "mamba2_ssd", .g = true, .unit_scale = true};
inline constexpr RecurrenceMember kRwkv6{.name = "rwkv6", .gk = true, .bonus = true, .unit_scale = true};
inline constexpr RecurrenceMember kRwkv7{.name = "rwkv7", .gk = true, .low_rank = true, .unit_scale = true};
inline constexpr RecurrenceMember kDeltaRule{.name = "delta_rule", .beta = true};
inline constexpr RecurrenceMember kGatedDeltaRule{.name = "gated_delta_rule", .g = true, .beta = true};
inline constexpr RecurrenceMember kGatedDeltaProduct{
    .name = "gated_delta_product", .g = true, .beta = true, .substeps = true, .g_optional = true};
inline constexpr RecurrenceMember kKda{.name = "kda", .gk = true, .beta = true};

template <class State, class Exec>
void run_member(const RecurrenceMember& m, LinearRecurrenceArgs<float, State> args, Exec& exec) {
  auto check = [&](std::string_view what, bool given, bool wanted, bool optional = false) {
    if (given && !wanted) refuse(m.name, what, " was given, expected none");
    if (!given && wanted && !optional) refuse(m.name, what, " is missing");
  };
  check("g", static_cast<bool>(args.g), m.g, m.g_optional);
  check("gk", static_cast<bool>(args.gk), m.gk);
  check("beta", static_cast<bool>(args.beta), m.beta);
  check("a", static_cast<bool>(args.a), m.low_rank);
  check("b", static_cast<bool>(args.b), m.low_rank);
  check("bonus", static_cast<bool>(args.bonus), m.bonus);
  if (args.substeps != 1 && !m.substeps) refuse(m.name, "substeps is ", args.substeps, ", expected 1");
  if (args.normalize && !m.normalize)
    refuse(m.name, "normalize is set, expected a member without normaliser");
  if (m.unit_scale && args.scale == 0) args.scale = 1;
  linear_recurrence(args, exec);
}

}  // namespace detail

// Linear attention (Katharopoulos et al., 2020): no decay; may be normalised. Feature maps are the caller's.
inline void linear_attention(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kLinearAttention, args, exec);
}
// RetNet (Sun et al., 2023): g is constant, see retention_decay.
inline void retention(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kRetention, args, exec);
}
// Lightning attention (Qin et al., 2024): g is constant, see lightning_decay. MiniMax has scale 1.
inline void lightning_attention(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kLightningAttention, args, exec);
}
// Gated linear attention with one decay a head.
inline void simple_gla(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kSimpleGla, args, exec);
}
// Gated linear attention (Yang et al., 2024).
inline void gla(const LinearRecurrence& args, CpuExec& exec) { detail::run_member(detail::kGla, args, exec); }
// HGRN2 (Qin et al., 2024): k = 1 - exp(gk).
inline void hgrn2(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kHgrn2, args, exec);
}
// The SSD of Mamba-2 (Dao and Gu, 2024): q = C, k = B, v = dt x, g = -exp(A_log) dt, scale 1; D x is the
// caller's.
inline void mamba2_ssd(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kMamba2Ssd, args, exec);
}
// RWKV-6 (Peng et al., 2024): reads before the update, with a bonus; scale 1.
inline void rwkv6(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kRwkv6, args, exec);
}
// RWKV-7 (Peng et al., 2025): a = -kk, b = kk eta; scale 1.
inline void rwkv7(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kRwkv7, args, exec);
}
// The delta rule (Schlag et al., 2021).
inline void delta_rule(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kDeltaRule, args, exec);
}
// The gated delta rule (Yang, Kautz and Hatamizadeh, 2024).
inline void gated_delta_rule(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kGatedDeltaRule, args, exec);
}
// Gated DeltaProduct (Siems et al., 2025): `substeps` delta updates a token; g may be left out.
inline void gated_delta_product(const LinearRecurrence& args, CpuExec& exec) {
  detail::run_member(detail::kGatedDeltaProduct, args, exec);
}
// Kimi delta attention (Kimi Team, 2025): the delta rule with a decay of each key channel.
inline void kda(const LinearRecurrence& args, CpuExec& exec) { detail::run_member(detail::kKda, args, exec); }

}  // namespace v0
}  // namespace ashlar
