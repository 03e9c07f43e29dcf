// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace ashlar::test {

// Counts what operator new gives to this thread while it lives. One at a time.
class AllocationMeter {
 public:
  AllocationMeter();
  ~AllocationMeter();
  // The most bytes that were held at once, of those allocated since the start.
  std::size_t peak() const;
};

}  // namespace ashlar::test
