// SPDX-License-Identifier: Apache-2.0
// A hostile file costs an exception, and memory of a small multiple of its size.
#include "tests/io/allocations.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "ashlar/io/safetensors.hpp"
#include "tests/io/files.hpp"

namespace {
thread_local bool metering = false;
thread_local std::ptrdiff_t held = 0, most = 0;

void count(std::ptrdiff_t bytes) {
  if (!metering) return;
  held += bytes;
  most = std::max(most, held);
}
}  // namespace

// Not inlined: gcc would take malloc and delete for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  void* p = std::malloc(bytes == 0 ? 1 : bytes);
  if (p != nullptr) count(static_cast<std::ptrdiff_t>(malloc_usable_size(p)));
  return p;
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* p = operator new(bytes, std::nothrow)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  if (p != nullptr) count(-static_cast<std::ptrdiff_t>(malloc_usable_size(p)));
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { operator delete(p); }

namespace ashlar::test {

AllocationMeter::AllocationMeter() { held = 0, most = 0, metering = true; }
AllocationMeter::~AllocationMeter() { metering = false; }
std::size_t AllocationMeter::peak() const { return static_cast<std::size_t>(most); }

namespace {

constexpr std::size_t kFixed = 16 << 10;  // messages, the first blocks of containers

std::string repeated(std::string_view part, std::size_t bytes) {
  std::string s;
  while (s.size() < bytes) s += part;
  return s;
}

TEST(Allocations, AreCounted) {
  AllocationMeter meter;
  EXPECT_EQ(repeated("x", 100'000).back(), 'x');  // grows by doubling, so that it once holds two buffers
  const std::string s(50'000, 'x');
  EXPECT_GE(meter.peak(), 100'000u);
  EXPECT_LT(meter.peak(), 400'000u);
}

TEST(Allocations, OfABadFileAreSmall) {
  for (const auto& entry : std::filesystem::directory_iterator(malformed(""))) {
    const std::string path = entry.path().string();
    const bool read_here =
        path.ends_with(".safetensors") || path.ends_with(".json") || path.ends_with(".pth");
    if (!read_here || path.ends_with("EXPECT.json")) continue;
    AllocationMeter meter;
    kind([&] { open_checkpoint(path); });
    EXPECT_LT(meter.peak(), kFixed + 64 * std::filesystem::file_size(path)) << path;
  }
}

TEST(Allocations, OfAHostileHeaderAreASmallMultipleOfIt) {
  const std::size_t n = 1 << 20;
  const std::string tensor = R"({"dtype":"U8","shape":[],"data_offsets":[0,0]},)";
  std::string many = "{";
  for (int i = 0; many.size() < n; ++i) many += concat("\"", i, "\":", tensor);
  for (const std::string& header :
       {concat(R"({"a":{"dtype":"U8","shape":[)", repeated("0,", n)),
        concat(R"({"a":{"dtype":"U8","shape":[)", repeated("0,", n), R"(0],"data_offsets":[0,0]}})"),
        concat(R"({"a":{"x":)", repeated("[", n)), concat(R"({"a":{"x":[)", repeated("[],", n)),
        concat("{", repeated(concat("\"\":", tensor), n)), many, concat("{\"", repeated("name", n)),
        concat("{\"__metadata__\":{\"", repeated("\\u00e9", n), "\":\"", repeated("\\n", n)),
        repeated(" ", n), repeated("-", n), repeated("9", n)}) {
    const std::string bytes = safetensors(header);
    std::string copy = bytes;
    AllocationMeter meter;
    kind([&] { SafetensorsFile(MappedFile::from_bytes(std::move(copy), "hostile")); });
    EXPECT_LT(meter.peak(), kFixed + 16 * bytes.size()) << header.substr(0, 60);
  }
}

TEST(Allocations, OfJsonAreASmallMultipleOfIt) {
  const std::size_t n = 1 << 20;
  std::string names = "{";
  for (int i = 0; names.size() < n; ++i) names += concat(i == 0 ? "\"" : ",\"", i, "\":0");
  for (const std::string& text :
       {concat("[", repeated("0,", n), "0]"), concat("[", repeated("[],", n), "0]"),
        concat("[", repeated("{},", n), "0]"), concat("[", repeated("\"\",", n), "0]"), concat(names, "}"),
        concat("[", repeated("{\"\":0},", n), "0]"), concat("[", repeated("[0],", n), "0]"),
        concat("\"", repeated("x", n), "\""), repeated("[", n), repeated("{\"a\":", n), repeated("1", n)}) {
    AllocationMeter meter;
    kind([&] { parse_json(text, "hostile"); });
    EXPECT_LT(meter.peak(), kFixed + 64 * text.size()) << text.substr(0, 60);
  }
}

}  // namespace
}  // namespace ashlar::test
