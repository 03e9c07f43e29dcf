// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/graph.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using How = CudaGraph::Run;

class CudaGraphTest : public test::CudaTest {};

DeviceTensor<float, 2> constant(Index rows, Index columns, float value) {
  Tensor<float, 2> host({rows, columns});
  for (Index i = 0; i < host.size(); ++i) host.data()[i] = value;
  return DeviceTensor<float, 2>(std::as_const(host).view());
}

// Every element of h after `runs` of the steps, each h += 1.
float only_value(CudaExec& exec, const DeviceTensor<float, 2>& h) {
  exec.synchronize();
  const Tensor<float, 2> host = h.to_host();
  for (Index i = 1; i < host.size(); ++i) EXPECT_EQ(host.data()[i], host.data()[0]);
  return host.data()[0];
}

TEST_F(CudaGraphTest, ReplaysAStep) {
  CudaExec exec;
  const auto one = constant(3, 70, 1);
  auto h = constant(3, 70, 0);
  CudaGraph graph;
  EXPECT_EQ(graph.last(), How::none);
  const How expected[] = {How::eager, How::recorded, How::replayed, How::replayed};
  for (int i = 0; i < 4; ++i) {
    graph.run(exec, [&] {
      residual_add(ResidualAdd{one.view(), h.view()}, exec);
      residual_add(ResidualAdd{one.view(), h.view()}, exec);
    });
    EXPECT_EQ(graph.last(), expected[i]);
    EXPECT_EQ(only_value(exec, h), 2.f * static_cast<float>(i + 1));
  }
}

TEST_F(CudaGraphTest, ChangesArgumentsAndSizes) {
  CudaExec exec;
  CudaGraph graph;
  for (Index rows : {3, 3, 3, 5, 1, 3}) {
    const auto x = constant(rows, 70, static_cast<float>(rows));
    auto h = constant(rows, 70, 1);
    graph.run(exec, [&] {
      residual_add(ResidualAdd{x.view(), h.view()}, exec);
      residual_add(ResidualAdd{x.view(), h.view()}, exec);
    });
    EXPECT_EQ(only_value(exec, h), 1 + 2 * static_cast<float>(rows));
  }
}

TEST_F(CudaGraphTest, AStepThatChangesRunsAsItIs) {
  CudaExec exec;
  const auto one = constant(2, 9, 1), two = constant(2, 9, 2);
  auto h = constant(2, 9, 0);
  CudaGraph graph;
  float expected = 0;
  auto run = [&](int adds, How how) {
    graph.run(exec, [&] {
      for (int i = 0; i < adds; ++i)
        residual_add(ResidualAdd{i == 0 ? one.view() : two.view(), h.view()}, exec);
    });
    expected += 1.f + 2.f * static_cast<float>(adds - 1);
    EXPECT_EQ(only_value(exec, h), expected);
    EXPECT_EQ(graph.last(), how);
  };
  run(2, How::eager), run(2, How::recorded), run(2, How::replayed);
  run(3, How::eager);  // more than was recorded
  run(3, How::eager), run(3, How::recorded), run(3, How::replayed);
  run(1, How::eager);  // less
  run(1, How::eager), run(1, How::recorded), run(1, How::replayed);
}

// Lists that are too long for a kernel's arguments.
TEST_F(CudaGraphTest, UploadsAreReadAnew) {
  CudaExec exec;
  constexpr Index kTokens = 300, kDim = 8;
  Tensor<float, 2> rows({kTokens, kDim});
  for (Index i = 0; i < rows.size(); ++i) rows.data()[i] = static_cast<float>(i / kDim);
  const DeviceTensor<float, 2> table(std::as_const(rows).view());
  DeviceTensor<float, 2> out({kTokens, kDim});
  CudaGraph graph;
  for (std::int32_t shift = 0; shift < 5; ++shift) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < kTokens; ++i) ids.push_back((i * 7 + shift) % kTokens);
    graph.run(exec, [&] { embedding(Embedding{ids, table.view(), out.view()}, exec); });
    exec.synchronize();
    const auto got = out.to_host();
    for (Index i = 0; i < kTokens; ++i)
      ASSERT_EQ(got.data()[i * kDim + 3], static_cast<float>(ids[static_cast<std::size_t>(i)]));
  }
  EXPECT_EQ(graph.last(), How::replayed);
}

TEST_F(CudaGraphTest, AStepThatThrowsLeavesTheContextAsItWas) {
  CudaExec exec;
  const auto one = constant(2, 9, 1);
  auto h = constant(2, 9, 0);
  CudaGraph graph;
  bool fail = false;
  auto step = [&] {
    residual_add(ResidualAdd{one.view(), h.view()}, exec);
    if (fail) throw std::runtime_error("stop");
  };
  graph.run(exec, step);
  fail = true;
  EXPECT_THROW(graph.run(exec, step), std::runtime_error);  // while it is recorded
  fail = false;
  EXPECT_EQ(only_value(exec, h), 1);
  graph.run(exec, step), graph.run(exec, step), graph.run(exec, step);
  EXPECT_EQ(graph.last(), How::replayed);
  EXPECT_EQ(only_value(exec, h), 4);
  fail = true;
  EXPECT_THROW(graph.run(exec, step), std::runtime_error);  // while it is replayed: nothing ran
  EXPECT_EQ(only_value(exec, h), 4);
}

// Experts' lists come back to the host: such a step is never recorded.
TEST_F(CudaGraphTest, AStepThatWaitsGoesOpByOp) {
  CudaExec exec;
  const auto logits = constant(2, 4, 0);
  DeviceTensor<float, 2> weights({2, 2});
  Tensor<std::int32_t, 2> experts({2, 2});
  const auto one = constant(2, 9, 1);
  auto h = constant(2, 9, 0);
  CudaGraph graph;
  for (int i = 0; i < 4; ++i) {
    graph.run(exec, [&] {
      residual_add(ResidualAdd{one.view(), h.view()}, exec);
      moe_route(MoeRoute{logits.view(), {}, experts.view(), weights.view()}, exec);
      residual_add(ResidualAdd{one.view(), h.view()}, exec);
    });
    EXPECT_EQ(graph.last(), How::eager);
    EXPECT_EQ(only_value(exec, h), 2.f * static_cast<float>(i + 1));
    EXPECT_EQ(experts.data()[0], 0);
    EXPECT_EQ(experts.data()[1], 1);
  }
}

}  // namespace
}  // namespace ashlar
