// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/recurrent_state.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "src/cpu/recurrence.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/recurrent_state.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/linear_recurrence-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void replay(const RecurrenceTask& p, Index first, Index count, void* state) {
  if (p.narrow)
    replay_updates(p, first, count, static_cast<bf16*>(state));
  else
    replay_updates(p, first, count, static_cast<float*>(state));
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(replay);
}  // namespace kernels
namespace {

constexpr std::string_view kState = "RecurrentState";

struct SavedState {
  std::uint64_t magic, version, dtype, heads, key_dim, value_dim, position;
};
constexpr std::uint64_t kMagic = 0x53726c6873617261;  // "arashlrS"
constexpr std::uint64_t kVersion = 1;
static_assert(std::endian::native == std::endian::little, "saved states are little-endian");

}  // namespace

RecurrentState::RecurrentState(Index heads, Index key_dim, Index value_dim, DType dtype)
    : heads_(heads), key_dim_(key_dim), value_dim_(value_dim), dtype_(dtype) {
  if (heads <= 0 || key_dim <= 0 || value_dim <= 0)
    refuse(kState, "heads, key_dim and value_dim are ", heads, ", ", key_dim, " and ", value_dim,
           ", expected positive numbers");
  if (dtype != DType::f32 && dtype != DType::bf16)
    refuse(kState, "dtype is ", name(dtype), ", expected f32 or bf16");
  Index size = panels();
  if (__builtin_mul_overflow(size, heads, &size) || __builtin_mul_overflow(size, key_dim, &size) ||
      __builtin_mul_overflow(size, kPanel * bits(dtype) / 8, &size))
    refuse(kState, "heads, key_dim and value_dim are ", heads, ", ", key_dim, " and ", value_dim,
           ", whose product overflows");
  data_ = Tensor<std::byte, 1>({size});
}

void RecurrentState::import_from(View<const float, 3> s, Index position) {
  expect_shape(kState, "the imported state", s, {heads_, key_dim_, value_dim_});
  if (position < 0) refuse(kState, "position is ", position, ", expected 0 or more");
  for (Index h = 0; h < heads_; ++h)
    for (Index p = 0; p < panels(); ++p)
      for (Index i = 0; i < key_dim_; ++i) {
        const Index columns = std::min(kPanel, value_dim_ - p * kPanel);
        const float* row = s.at(h, i, p * kPanel);
        if (dtype_ == DType::f32)
          std::memcpy(static_cast<float*>(panel(h, p)) + i * kPanel, row,
                      sizeof(float) * static_cast<std::size_t>(columns));
        else
          for (Index j = 0; j < columns; ++j) static_cast<bf16*>(panel(h, p))[i * kPanel + j] = bf16(row[j]);
      }
  begin_history(position);
}

void RecurrentState::export_to(View<float, 3> s) const {
  expect_shape(kState, "the exported state", s, {heads_, key_dim_, value_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index p = 0; p < panels(); ++p)
      for (Index i = 0; i < key_dim_; ++i) {
        const Index columns = std::min(kPanel, value_dim_ - p * kPanel);
        float* row = s.at(h, i, p * kPanel);
        if (dtype_ == DType::f32)
          std::memcpy(row, static_cast<const float*>(panel(h, p)) + i * kPanel,
                      sizeof(float) * static_cast<std::size_t>(columns));
        else
          for (Index j = 0; j < columns; ++j)
            row[j] = static_cast<float>(static_cast<const bf16*>(panel(h, p))[i * kPanel + j]);
      }
}

bool RecurrentState::padding_is_zero() const {
  const Index width = panel_bytes() / key_dim_,
              used = (value_dim_ - (panels() - 1) * kPanel) * bits(dtype_) / 8;
  for (Index h = 0; h < heads_; ++h)
    for (Index i = 0; i < key_dim_; ++i) {
      const auto* row = static_cast<const std::byte*>(panel(h, panels() - 1)) + i * width;
      if (std::any_of(row + used, row + width, [](std::byte x) { return x != std::byte{0}; })) return false;
    }
  return true;
}

void RecurrentState::begin_history(Index position) {
  position_ = position;
  history_.first = history_.count = 0;
  if (history_.keep != 0) std::memcpy(history_.checkpoint.data(), data_.data(), raw().size());
}

void RecurrentState::keep_updates(Index tokens, Index substeps) {
  if (tokens < 0 || substeps < 1)
    refuse(kState, "tokens is ", tokens, " and substeps ", substeps, ", expected 0 or more and 1 or more");
  History history;
  history.keep = tokens, history.substeps = substeps;
  if (tokens != 0) {
    history.checkpoint = data_;
    Index floats = 0;
    if (__builtin_mul_overflow(tokens * 3, substeps * heads_ * update_size(), &floats))
      refuse(kState, "tokens is ", tokens, ", too many to keep");
    history.updates = Tensor<float, 1>({floats});
  }
  history_ = std::move(history);
}

Index RecurrentState::kept_tokens() const {
  return std::min(history_.keep, history_.count / history_.substeps);
}

void RecurrentState::rollback(Index tokens) {
  if (tokens < 0 || tokens > kept_tokens())
    refuse(kState, tokens, " tokens were to be taken back, expected 0 to ", kept_tokens());
  if (tokens == 0) return;
  history_.count -= tokens * history_.substeps;
  position_ -= tokens;
  std::memcpy(data_.data(), history_.checkpoint.data(), raw().size());
  kernels::RecurrenceTask p;
  p.key_dim = key_dim_, p.columns = value_dim_, p.narrow = dtype_ == DType::bf16;
  p.update_stride = heads_ * update_size(), p.update_slots = history_.slots();
  p.update_columns = panels() * kPanel, p.low_updates = history_.low_rank;
  for (Index h = 0; h < heads_; ++h) {
    p.updates = update(0, h);
    ASHLAR_DISPATCH_ISA(history_.isa, replay)(p, history_.first, history_.count, panel(h, 0));
  }
}

std::vector<std::byte> RecurrentState::save() const {
  const SavedState header{kMagic,
                          kVersion,
                          static_cast<std::uint64_t>(dtype_ == DType::bf16 ? 1 : 0),
                          static_cast<std::uint64_t>(heads_),
                          static_cast<std::uint64_t>(key_dim_),
                          static_cast<std::uint64_t>(value_dim_),
                          static_cast<std::uint64_t>(position_)};
  std::vector<std::byte> saved(sizeof header + raw().size());
  std::memcpy(saved.data(), &header, sizeof header);
  if (!raw().empty()) std::memcpy(saved.data() + sizeof header, data_.data(), raw().size());
  return saved;
}

void RecurrentState::restore(std::span<const std::byte> saved) {
  auto invalid = [](const auto&... parts) { throw Error("InvalidState", concat("saved state: ", parts...)); };
  SavedState header;
  if (saved.size() < sizeof header)
    invalid(saved.size(), " bytes are too few, expected a header of ", sizeof header);
  std::memcpy(&header, saved.data(), sizeof header);
  if (header.magic != kMagic) invalid("it does not begin as a saved state does");
  if (header.version != kVersion)
    invalid("its version is ", static_cast<std::size_t>(header.version), ", expected ", kVersion);
  if (header.dtype > 1) invalid("its type is ", static_cast<std::size_t>(header.dtype), ", expected 0 or 1");
  const std::size_t bytes = saved.size() - sizeof header;
  const std::uint64_t element = header.dtype == 1 ? sizeof(bf16) : sizeof(float);
  std::uint64_t size = element * kPanel;
  const std::uint64_t panels = header.value_dim / kPanel + (header.value_dim % kPanel != 0 ? 1 : 0);
  bool fits = header.position < (std::uint64_t{1} << 62);
  for (std::uint64_t n : {header.heads, header.key_dim, panels})
    fits = fits && n != 0 && n <= bytes && !__builtin_mul_overflow(size, n, &size) && size <= bytes;
  if (!fits || size != bytes)
    invalid("it holds ", bytes, " bytes of a state [", static_cast<std::size_t>(header.heads), ", ",
            static_cast<std::size_t>(header.key_dim), ", ", static_cast<std::size_t>(header.value_dim),
            "], which they do not fit");
  RecurrentState state(static_cast<Index>(header.heads), static_cast<Index>(header.key_dim),
                       static_cast<Index>(header.value_dim), header.dtype == 1 ? DType::bf16 : DType::f32);
  std::memcpy(state.data_.data(), saved.data() + sizeof header, bytes);
  if (!state.padding_is_zero()) invalid("there are values behind its ", state.value_dim_, " columns");
  state.keep_updates(history_.keep, history_.substeps);
  state.begin_history(static_cast<Index>(header.position));
  *this = std::move(state);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
