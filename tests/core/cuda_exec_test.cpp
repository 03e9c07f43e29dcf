// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/cuda_exec.hpp"

#include <gtest/gtest.h>

namespace ashlar {
namespace {

// Every configuration links the CUDA layer: without a device, or built without it, it says so.
TEST(CudaExec, SaysWhyThereIsNone) {
  std::string why;
  if (cuda_available(&why)) GTEST_SKIP() << "there is a CUDA device";
  EXPECT_FALSE(why.empty());
  try {
    CudaExec exec;
    FAIL() << "a context was made without a device";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "NoCuda");
    EXPECT_NE(std::string(e.what()).find(why), std::string::npos);
  }
}

}  // namespace
}  // namespace ashlar
