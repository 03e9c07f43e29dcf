// SPDX-License-Identifier: Apache-2.0
// The light umbrella: views, tensors, the execution context and every op. Configurations and weights
// (core/value.hpp, core/parameters.hpp, core/dense_weight.hpp), equations, kernels, modules, models and file
// formats have headers of their own.
#pragma once
#include "ashlar/core/any_view.hpp"
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/dtype.hpp"
#include "ashlar/core/error.hpp"
#include "ashlar/core/index.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/core/tensor.hpp"
#include "ashlar/core/view.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/dense.hpp"
#include "ashlar/ops/embedding.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/linear_recurrence.hpp"
#include "ashlar/ops/moe.hpp"
#include "ashlar/ops/norm.hpp"
#include "ashlar/ops/residual_add.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/rwkv7_gates.hpp"
#include "ashlar/ops/sampling.hpp"
#include "ashlar/ops/scale_heads.hpp"
#include "ashlar/ops/short_conv.hpp"
#include "ashlar/ops/softmax_attention.hpp"
#include "ashlar/ops/token_shift.hpp"
