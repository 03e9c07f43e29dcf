// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "ashlar/io/safetensors.hpp"
#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;
using Tensors = std::vector<std::pair<std::string, Parameter>>;

std::ptrdiff_t files_in(const test::TempDir& dir) {
  return std::distance(std::filesystem::directory_iterator(dir.path()), {});
}

struct Sample {
  unsigned char data[64];
  Tensors tensors;
  SafetensorsMetadata metadata = {{"config", R"({"a": "b\n"})"}, {"", ""}, {"\xf0\x9f\x98\x80", "\t"}};

  Sample() {
    for (int i = 0; i < 64; ++i) data[i] = static_cast<unsigned char>(i + 100);
    for (int i = 0; i <= static_cast<int>(DType::f4); ++i) {
      const auto dtype = static_cast<DType>(i);
      tensors.emplace_back(concat("t.", name(dtype)), Parameter{data, dtype, {2, 4}, nullptr});
      tensors.emplace_back(concat("zero.", name(dtype)), Parameter{nullptr, dtype, {3, 0}, nullptr});
    }
    tensors.emplace_back("scalar", Parameter{data, DType::f32, {}, nullptr});
    tensors.emplace_back("quote\" \\ \n \xc3\xa9", Parameter{data, DType::u8, {1}, nullptr});
  }
};

TEST(WriteSafetensors, IsReadBack) {
  const test::TempDir dir;
  const Sample sample;
  write_safetensors(dir.path("f"), sample.tensors, sample.metadata);
  EXPECT_EQ(files_in(dir), 1);
  const SafetensorsFile file(dir.path("f"));
  EXPECT_EQ(file.metadata(), sample.metadata);
  ASSERT_EQ(file.names().size(), sample.tensors.size());
  for (const auto& [name, want] : sample.tensors) {
    const Parameter got = file.at(name);
    EXPECT_EQ(got.dtype, want.dtype) << name;
    EXPECT_EQ(got.shape, want.shape) << name;
    const auto bytes = static_cast<std::size_t>(want.size() * bits(want.dtype) / 8);
    EXPECT_EQ(std::memcmp(got.data, sample.data, bytes), 0) << name;
    // Aligned in the file, so that it is not copied.
    const auto* begin = file.file().data();
    EXPECT_TRUE(static_cast<const std::byte*>(got.data) >= begin &&
                static_cast<const std::byte*>(got.data) <= begin + file.file().size())
        << name;
  }
  write_safetensors(dir.path("g"), file, file.metadata());
  EXPECT_EQ(test::file_bytes(dir.path("g")), test::file_bytes(dir.path("f")));
}

// As the official writer: types by descending rank, then names; spaces to a multiple of 8.
TEST(WriteSafetensors, HasTheOfficialForm) {
  const test::TempDir dir;
  const unsigned char data[16] = {1, 2, 3, 4, 5, 6, 7, 8};
  write_safetensors(dir.path("f"), Tensors{{"c", {data, DType::u8, {1}, nullptr}},
                                           {"b", {data, DType::f32, {1}, nullptr}},
                                           {"a", {data, DType::f32, {1, 1}, nullptr}},
                                           {"d", {data, DType::i64, {1}, nullptr}}});
  std::string header = R"({"d":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},)"
                       R"("c":{"dtype":"U8","shape":[1],"data_offsets":[16,17]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(test::file_bytes(dir.path("f")),
            test::safetensors(header, "\1\2\3\4\5\6\7\10\1\2\3\4\1\2\3\4\1"));
  write_safetensors(dir.path("f"), Tensors{});
  EXPECT_EQ(test::file_bytes(dir.path("f")), test::file_bytes(test::malformed("ok_empty.safetensors")));
}

TEST(WriteSafetensors, RefusesWhatTheFormatCannotHold) {
  const test::TempDir dir;
  const unsigned char data[16] = {};
  const auto write = [&](const Tensors& tensors, const SafetensorsMetadata& metadata = {}) {
    return kind([&] { write_safetensors(dir.path("f"), tensors, metadata); });
  };
  const Parameter u8{data, DType::u8, {1}, nullptr};
  EXPECT_EQ(write({{"a", u8}, {"b", u8}, {"a", u8}}), "InvalidArgument");
  EXPECT_EQ(write({{"__metadata__", u8}}), "InvalidArgument");
  EXPECT_EQ(write({{"\xff", u8}}), "InvalidArgument");
  EXPECT_EQ(write({{"a", u8}}, {{"k", "\xc3"}}), "InvalidArgument");
  EXPECT_EQ(write({{"a", {data, DType::f4, {3}, nullptr}}}), "InvalidArgument");
  EXPECT_EQ(write({{"a", {data, DType::u8, {-1}, nullptr}}}), "InvalidArgument");
  EXPECT_EQ(write({{"a", {data, DType::u8, {Index{1} << 62, 16}, nullptr}}}), "InvalidArgument");
  EXPECT_EQ(write({{"a", {nullptr, DType::u8, {1}, nullptr}}}), "InvalidArgument");
  EXPECT_EQ(files_in(dir), 0);
}

TEST(WriteSafetensors, LeavesTheOldFileWhenItFails) {
  const test::TempDir dir;
  const unsigned char data[4] = {1, 2, 3, 4};
  const Tensors tensors = {{"a", {data, DType::u8, {4}, nullptr}}};
  EXPECT_EQ(kind([&] { write_safetensors(dir.path("none/f"), tensors); }), "FileUnwritable");
  std::filesystem::create_directory(dir.path("folder"));
  dir.write("folder/x", "");
  EXPECT_EQ(kind([&] { write_safetensors(dir.path("folder"), tensors); }), "FileUnwritable");
  EXPECT_EQ(files_in(dir), 1);  // no temporary file is left

  // A reader of the old file keeps it while a new one takes its place.
  write_safetensors(dir.path("f"), tensors);
  const SafetensorsFile old(dir.path("f"));
  const Parameter a = old.at("a");
  write_safetensors(dir.path("f"), Tensors{{"b", {data, DType::u8, {2}, nullptr}}});
  EXPECT_EQ(std::memcmp(a.data, data, 4), 0);
  EXPECT_EQ(SafetensorsFile(dir.path("f")).names(), std::vector<std::string>{"b"});
}

}  // namespace
}  // namespace ashlar
