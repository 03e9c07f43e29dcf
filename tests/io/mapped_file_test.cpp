// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/mapped_file.hpp"

#include <sys/stat.h>

#include <cstring>

#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;

TEST(MappedFile, HoldsTheBytes) {
  const test::TempDir dir;
  std::string bytes(10'000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  for (const MappedFile& file :
       {MappedFile(dir.write("f", bytes)), MappedFile::from_bytes(bytes, "memory")}) {
    ASSERT_EQ(file.size(), bytes.size());
    EXPECT_EQ(std::memcmp(file.data(), bytes.data(), bytes.size()), 0);
    EXPECT_EQ(file.read(4095, 100), bytes.substr(4095, 100));
    EXPECT_EQ(file.read(bytes.size(), 0), "");
    EXPECT_EQ(kind([&] { file.read(bytes.size() - 1, 2); }), "InvalidArgument");
    EXPECT_EQ(kind([&] { file.read(~std::uint64_t{0}, 2); }), "InvalidArgument");
    EXPECT_EQ(kind([&] { file.read(1, ~std::uint64_t{0}); }), "InvalidArgument");
  }
}

TEST(MappedFile, MayBeEmpty) {
  const test::TempDir dir;
  const MappedFile file(dir.write("f", ""));
  EXPECT_EQ(file.size(), 0u);
  EXPECT_EQ(file.data(), nullptr);
  EXPECT_EQ(read_text(dir.path("f")), "");
}

TEST(MappedFile, LivesAsLongAsItsOwner) {
  const test::TempDir dir;
  std::shared_ptr<const void> owner;
  const std::byte* data = nullptr;
  {
    const MappedFile file(dir.write("f", "still here"));
    owner = file.owner(), data = file.data();
  }
  std::filesystem::remove(dir.path("f"));
  EXPECT_EQ(std::memcmp(data, "still here", 10), 0);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const test::TempDir dir;
  const auto open = [&](std::string_view name) { return kind([&] { MappedFile file(dir.path(name)); }); };
  EXPECT_EQ(open("none"), "FileNotFound");
  EXPECT_EQ(open("none/below"), "FileNotFound");
  EXPECT_EQ(open(""), "FileUnreadable");
  dir.write("file", "x");
  EXPECT_EQ(open("file/below"), "FileNotFound");
  ASSERT_EQ(mkfifo(dir.path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(open("pipe"), "FileUnreadable");
  EXPECT_EQ(open(std::string(5000, 'x')), "FileUnreadable");
  EXPECT_EQ(open(std::string_view("file\0", 5)), "FileUnreadable");
}

TEST(MappedFile, ReportsAFileThatShrank) {
  const test::TempDir dir;
  const MappedFile file(dir.write("f", std::string(100, 'x')));
  std::filesystem::resize_file(dir.path("f"), 50);
  EXPECT_EQ(kind([&] { file.read(0, 100); }), "FileUnreadable");
}

}  // namespace
}  // namespace ashlar
