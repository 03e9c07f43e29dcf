// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/safetensors.hpp"

#include <cstring>
#include <optional>
#include <thread>

#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;
using test::malformed;

std::string verdict(std::string bytes) {
  return kind([&] {
    const SafetensorsFile file(MappedFile::from_bytes(std::move(bytes), "memory"));
    test::checksum(file);
  });
}

// One tensor "a" whose description is this, and `bytes` bytes of data.
std::string one(std::string_view description, std::size_t bytes) {
  return verdict(test::safetensors(concat("{\"a\":{", description, "}}"), std::string(bytes, 'x')));
}

TEST(Safetensors, GivesTheListedVerdictOnEveryMalformedFile) {
  const Value expect = read_json(malformed("EXPECT.json"));
  int seen = 0;
  for (const Value& entry : *expect.array()) {
    const std::string name = entry.get_string("file", ""), want = entry.get_string("expect", "");
    if (!name.ends_with(".safetensors")) continue;
    ++seen;
    EXPECT_EQ(kind([&] { test::checksum(*open_checkpoint(malformed(name))); }), want) << name;
    EXPECT_EQ(verdict(test::file_bytes(malformed(name))), want) << name;
  }
  EXPECT_GE(seen, 20);
}

TEST(Safetensors, ReadsTheValues) {
  for (const char* name :
       {"ok_min.safetensors", "ok_unordered_keys.safetensors", "ok_metadata.safetensors"}) {
    const SafetensorsFile file(malformed(name));
    EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b"}));
    const Parameter a = file.at("a"), b = file.at("b");
    EXPECT_EQ(a.shape, (std::vector<Index>{2, 3}));
    EXPECT_EQ(a.dtype, DType::f32);
    EXPECT_EQ(b.shape, (std::vector<Index>{4}));
    EXPECT_EQ(b.dtype, DType::i8);
    for (int i = 0; i < 24; ++i) EXPECT_EQ(static_cast<const unsigned char*>(a.data)[i], i);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(static_cast<const unsigned char*>(b.data)[i], 24 + i);
    EXPECT_FALSE(file.contains("c"));
    EXPECT_FALSE(file.contains(""));
    EXPECT_EQ(kind([&] { file.at("c"); }), "TensorNotFound");
  }
  EXPECT_EQ(SafetensorsFile(malformed("ok_metadata.safetensors")).metadata(),
            (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_TRUE(SafetensorsFile(malformed("ok_empty.safetensors")).names().empty());

  const SafetensorsFile edge(malformed("ok_scalar_and_zero.safetensors"));
  EXPECT_EQ(edge.at("s").size(), 1);
  EXPECT_TRUE(edge.at("s").shape.empty());
  EXPECT_EQ(test::element<float>(edge.at("s"), 0), 1.0f);
  EXPECT_EQ(edge.at("z").shape, (std::vector<Index>{0, 7}));

  const SafetensorsFile small(malformed("ok_bf16_fp8.safetensors"));
  const Parameter f8 = small.at("f8"), h = small.at("h");
  EXPECT_EQ(f8.dtype, DType::f8_e4m3);
  EXPECT_EQ(std::memcmp(f8.data, "\x38\xb8\x7e\x01", 4), 0);  // 1, -1, 448, 2^-9
  EXPECT_EQ(static_cast<float>(test::element<bf16>(h, 0)), 1.0f);
  EXPECT_EQ(static_cast<float>(test::element<bf16>(h, 1)), -2.0f);
}

TEST(Safetensors, IsMappedNotCopiedAndOutlivesItsFile) {
  Parameter p;
  {
    const SafetensorsFile file(malformed("ok_min.safetensors"));
    p = file.at("a");
    const auto* begin = file.file().data();
    EXPECT_GE(static_cast<const std::byte*>(p.data), begin);
    EXPECT_LT(static_cast<const std::byte*>(p.data), begin + file.file().size());
  }
  EXPECT_EQ(static_cast<const unsigned char*>(p.data)[23], 23);
}

TEST(Safetensors, RefusesEveryTruncation) {
  for (const auto& entry : std::filesystem::directory_iterator(malformed(""))) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ok_") || !name.ends_with(".safetensors")) continue;
    const std::string bytes = test::file_bytes(entry.path().string());
    for (std::size_t n = 0; n < bytes.size(); ++n)
      EXPECT_NE(verdict(bytes.substr(0, n)), "OK") << name << " " << n;
    EXPECT_EQ(verdict(bytes), "OK");
  }
}

// Each byte in turn changed to some telling values: an Error, or a file that can be read.
TEST(Safetensors, SurvivesEveryChangedByte) {
  const std::string bytes = test::file_bytes(malformed("ok_metadata.safetensors"));
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (const char c :
         {'\0', '\x01', ' ', '"', '0', '9', '-', '[', ']', '{', '}', ',', '\x7f', '\x80', '\xff'}) {
      std::string changed = bytes;
      changed[at] = c;
      verdict(std::move(changed));
    }
}

TEST(Safetensors, ChecksTheLengthBeforeAllElse) {
  EXPECT_EQ(verdict(""), "HeaderTooSmall");
  EXPECT_EQ(verdict(std::string(7, '\0')), "HeaderTooSmall");
  EXPECT_EQ(verdict(std::string(8, '\xff')), "HeaderTooLarge");
  EXPECT_EQ(verdict(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)), "HeaderTooLarge");       // 100,000,001
  EXPECT_EQ(verdict(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8)), "InvalidHeaderLength");  // 100,000,000
  EXPECT_EQ(verdict(std::string("\x01\0\0\0\0\0\0\0", 8)), "InvalidHeaderLength");
  EXPECT_EQ(verdict(std::string(8, '\0')), "InvalidHeaderDeserialization");
}

TEST(Safetensors, AcceptsWhatTheOfficialReaderAccepts) {
  EXPECT_EQ(verdict(test::safetensors("{}")), "OK");
  EXPECT_EQ(verdict(test::safetensors(" \n{} \t ")), "OK");
  EXPECT_EQ(verdict(test::safetensors(R"({"__metadata__":{}})")), "OK");
  EXPECT_EQ(verdict(test::safetensors(R"({"__metadata__":null})")), "OK");
  EXPECT_EQ(one(R"("data_offsets":[0,4],"shape":[1],"dtype":"F32")", 4), "OK");
  EXPECT_EQ(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":{"y":[1,{"z":null}],"w":-1.5})", 4),
            "OK");
  EXPECT_EQ(one(R"("x":[],"dtype":"F32","y":"s","shape":[1],"data_offsets":[0,4])", 4), "OK");
  EXPECT_EQ(one(R"("dtype":"F4","shape":[2,3],"data_offsets":[0,3])", 3), "OK");
  EXPECT_EQ(one(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])", 3), "OK");
  EXPECT_EQ(one(R"("dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0])", 0), "OK");
  EXPECT_EQ(verdict(test::safetensors(R"({"":{"dtype":"C64","shape":[],"data_offsets":[0,8]}})", "12345678")),
            "OK");
}

TEST(Safetensors, RefusesAHeaderOfAnotherForm) {
  for (std::string_view header : {"",
                                  " ",
                                  "[]",
                                  "null",
                                  "1",
                                  "\"x\"",
                                  "{",
                                  "{}}",
                                  "{} x",
                                  R"({"a":1})",
                                  R"({"a":null})",
                                  R"({"a":[]})",
                                  R"({"a":{}})",
                                  R"({"__metadata__":1})",
                                  R"({"__metadata__":[]})",
                                  R"({"__metadata__":{"a":null}})",
                                  R"({"__metadata__":{"a":{}}})",
                                  R"({"__metadata__":{"a":"1","a":"2"}})",
                                  R"({"__metadata__":{},"__metadata__":{}})",
                                  "\xef\xbb\xbf{}"})
    EXPECT_EQ(verdict(test::safetensors(header)), "InvalidHeaderDeserialization") << header;
  EXPECT_EQ(verdict(test::safetensors(std::string_view("{}\0\0", 4))), "InvalidHeaderDeserialization");
  for (std::string_view description : {R"("shape":[1],"data_offsets":[0,4])",
                                       R"("dtype":"F32","data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[1])",
                                       R"("dtype":"f32","shape":[1],"data_offsets":[0,4])",
                                       R"("dtype":1,"shape":[1],"data_offsets":[0,4])",
                                       R"("dtype":["F32"],"shape":[1],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":1,"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":{},"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[-0],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":null,"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":[0])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":[])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":[0,-4])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":{})",
                                       R"("dtype":"F32","shape":[1],"data_offsets":[[0,4]])",
                                       R"("dtype":"F32","shape":[1],"data_offsets":4)",
                                       R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])",
                                       R"("dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4])"})
    EXPECT_EQ(one(description, 4), "InvalidHeaderDeserialization") << description;
}

TEST(Safetensors, RefusesANameTwice) {
  const std::string_view a = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  const std::string_view next = R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]})";
  EXPECT_EQ(verdict(test::safetensors(concat("{", a, ",", a, "}"), "x")), "InvalidHeaderDeserialization");
  EXPECT_EQ(verdict(test::safetensors(concat("{", a, ",", next, "}"), "xy")), "InvalidHeaderDeserialization");
}

TEST(Safetensors, ChecksPlacesAndSizes) {
  EXPECT_EQ(one(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])", 2), "InvalidOffset");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])", 1), "InvalidOffset");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615])", 1),
            "ValidationOverflow");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,18446744073709551615])", 1),
            "TensorInvalidInfo");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951])", 1),
            "MetadataIncompleteBuffer");
  EXPECT_EQ(one(R"("dtype":"F64","shape":[288230376151711744],"data_offsets":[0,0])", 0),
            "ValidationOverflow");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0),
            "ValidationOverflow");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])", 0),
            "ValidationOverflow");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0])", 0),
            "ValidationOverflow");
  EXPECT_EQ(one(R"("dtype":"F6_E3M2","shape":[3],"data_offsets":[0,3])", 3), "MisalignedSlice");
  EXPECT_EQ(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4), "TensorInvalidInfo");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[],"data_offsets":[0,0])", 0), "TensorInvalidInfo");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])", 0), "MetadataIncompleteBuffer");
  EXPECT_EQ(one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])", 2), "MetadataIncompleteBuffer");
}

TEST(Safetensors, RefusesDeepNestingInIgnoredMembers) {
  const auto nested = [](std::size_t n) {
    return one(concat("\"x\":", std::string(n, '['), std::string(n, ']'),
                      R"(,"dtype":"U8","shape":[1],"data_offsets":[0,1])"),
               1);
  };
  EXPECT_EQ(nested(100), "OK");
  EXPECT_EQ(nested(200), "InvalidHeaderDeserialization");
  EXPECT_EQ(nested(1'000'000), "InvalidHeaderDeserialization");
}

// Whatever the header's length, data are aligned for their type; and what the file aligns is not copied.
TEST(Safetensors, AlignsWhatTheFileDoesNot) {
  const std::string header =
      R"({"f":{"dtype":"F32","shape":[3],"data_offsets":[1,13]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("d":{"dtype":"F64","shape":[1],"data_offsets":[13,21]},"z":{"dtype":"F64","shape":[0],"data_offsets":[21,21]}})";
  const float f[3] = {1.5f, -2.5f, 3.5f};
  const double d = 0.1;
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(f), 12).append(reinterpret_cast<const char*>(&d), 8);
  const test::TempDir dir;
  int mapped_floats = 0, mapped_doubles = 0;
  for (std::size_t spaces = 0; spaces < 8; ++spaces) {
    const std::string path =
        dir.write(concat("f", spaces), test::safetensors(header + std::string(spaces, ' '), data));
    std::optional<SafetensorsFile> file(std::in_place, path);
    for (const char* name : {"f", "d", "z"}) {
      const Parameter p = file->at(name);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p.data) % static_cast<std::uintptr_t>(bits(p.dtype) / 8),
                0u);
    }
    const auto* begin = file->file().data();
    const auto is_mapped = [&](const Parameter& p) {
      return p.data >= begin && p.data < begin + file->file().size();
    };
    const Parameter first = file->at("f"), again = file->at("f"), wide = file->at("d");
    EXPECT_EQ(first.data, again.data);
    mapped_floats += is_mapped(first), mapped_doubles += is_mapped(wide);
    EXPECT_TRUE(is_mapped(file->at("b")));
    file.reset();
    EXPECT_EQ(std::memcmp(first.data, f, 12), 0);
    EXPECT_EQ(test::element<double>(wide, 0), d);
  }
  EXPECT_EQ(mapped_floats, 2);  // of eight lengths
  EXPECT_EQ(mapped_doubles, 1);
}

TEST(Safetensors, IsReadByManyThreads) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[64],"data_offsets":[1,257]}})";
  const SafetensorsFile file(
      MappedFile::from_bytes(test::safetensors(header, std::string(257, '\x3f')), "memory"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        EXPECT_EQ(test::element<float>(file.at("f"), 63), std::bit_cast<float>(0x3f3f3f3f));
    });
  for (auto& t : threads) t.join();
}

// Ten gigabytes, of which the disk holds the header alone.
TEST(Safetensors, OpensALargeFileByItsHeader) {
  const test::TempDir dir;
  constexpr Index kTensors = 1000, kEach = 10 << 20;
  std::string header = "{";
  for (Index i = 0; i < kTensors; ++i)
    header += concat(i == 0 ? "" : ",", "\"model.layers.", i,
                     ".weight\":{\"dtype\":\"BF16\",\"shape\":[1024,5120],", "\"data_offsets\":[", i * kEach,
                     ",", (i + 1) * kEach, "]}");
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::string path = dir.write("big.safetensors", test::safetensors(header));
  std::filesystem::resize_file(path, 8 + header.size() + static_cast<std::uint64_t>(kTensors * kEach));
  const SafetensorsFile file(path);
  EXPECT_EQ(file.names().size(), 1000u);
  const Parameter last = file.at("model.layers.999.weight");
  EXPECT_EQ(static_cast<const std::byte*>(last.data) + kEach, file.file().data() + file.file().size());
  EXPECT_EQ(static_cast<float>(test::element<bf16>(last, last.size() - 1)), 0.0f);
}

}  // namespace
}  // namespace ashlar
