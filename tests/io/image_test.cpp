// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/io/allocations.hpp"
#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using test::kind;

// A PNG written byte by byte, in stored blocks: of any colour type, depth and interlacing.
std::string big(std::uint64_t x, int bytes) {
  std::string s;
  for (int i = bytes - 1; i >= 0; --i) s += static_cast<char>(x >> 8 * i);
  return s;
}

std::string chunk(const std::string& type_and_data) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : type_and_data) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return concat(big(type_and_data.size() - 4, 4), type_and_data, big(~crc, 4));
}

struct PngSpec {
  Index width = 0, height = 0;
  int depth = 8, colour = 2;  // 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGB and alpha
  bool interlaced = false;
  std::string palette, transparent;  // PLTE, tRNS
};

int channels_of(int colour) { return colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1; }

// sample(y, x, c) below 2^depth.
template <class F>
std::string png(const PngSpec& spec, F&& sample) {
  std::string raw;
  const auto pass = [&](Index y0, Index x0, Index dy, Index dx) {
    if (x0 >= spec.width) return;
    for (Index y = y0; y < spec.height; y += dy) {
      raw += '\0';  // no filter
      unsigned held = 0, bits = 0;
      for (Index x = x0; x < spec.width; x += dx)
        for (int c = 0; c < channels_of(spec.colour); ++c) {
          held = held << spec.depth | static_cast<unsigned>(sample(y, x, c));
          for (bits += static_cast<unsigned>(spec.depth); bits >= 8; bits -= 8)
            raw += static_cast<char>(held >> (bits - 8));
        }
      if (bits > 0) raw += static_cast<char>(held << (8 - bits));
    }
  };
  if (spec.interlaced) {
    constexpr Index kAdam7[7][4] = {{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4},
                                    {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}};
    for (const auto& p : kAdam7) pass(p[0], p[1], p[2], p[3]);
  } else {
    pass(0, 0, 1, 1);
  }
  std::uint32_t a = 1, b = 0;
  for (const char c : raw) a = (a + static_cast<unsigned char>(c)) % 65521, b = (b + a) % 65521;
  const std::uint64_t n = raw.size();
  EXPECT_LT(n, 65536u);
  const std::string stored = concat("\x78\x01\x01",
                                    std::string{static_cast<char>(n), static_cast<char>(n >> 8),
                                                static_cast<char>(~n), static_cast<char>(~n >> 8)},
                                    raw, big(b << 16 | a, 4));
  std::string out =
      concat(std::string_view("\x89PNG\r\n\x1a\n", 8),
             chunk(concat("IHDR", big(static_cast<std::uint64_t>(spec.width), 4),
                          big(static_cast<std::uint64_t>(spec.height), 4),
                          std::string{static_cast<char>(spec.depth), static_cast<char>(spec.colour), 0, 0,
                                      static_cast<char>(spec.interlaced)})));
  if (!spec.palette.empty()) out += chunk("PLTE" + spec.palette);
  if (!spec.transparent.empty()) out += chunk("tRNS" + spec.transparent);
  return out + chunk("IDAT" + stored) + chunk("IEND");
}

Image decode(std::string bytes) { return decode_image(MappedFile::from_bytes(std::move(bytes), "test")); }
std::string outcome(const std::string& bytes) {
  return kind([&] { decode(bytes); });
}

int at(const Image& image, Index y, Index x, Index c) {
  const Index i = (y * image.width + x) * image.channels + c;
  if (image.depth == 8) return image.bytes[static_cast<std::size_t>(i)];
  std::uint16_t s;
  std::memcpy(&s, image.bytes.data() + 2 * i, 2);
  return s;
}

int some(Index y, Index x, Index c, int depth) {
  return static_cast<int>((y * 40503 + x * 30011 + c * 9973 + 77) & ((1 << depth) - 1));
}

Image pattern(Index height, Index width, Index channels, int depth) {
  Image image = make_image(height, width, channels, depth);
  for (std::size_t i = 0; i < image.bytes.size(); ++i)
    image.bytes[i] = static_cast<std::uint8_t>(i * 37 + i / 11);
  return image;
}

TEST(ImagePng, ReadsEveryKind) {
  for (const bool interlaced : {false, true})
    for (const int colour : {0, 2, 4, 6})
      for (const int depth : {1, 2, 4, 8, 16}) {
        if (depth < 8 && colour != 0) continue;
        for (const auto& [height, width] : {std::pair<Index, Index>{1, 1}, {13, 11}, {3, 17}, {5, 1}}) {
          const PngSpec spec{
              .width = width, .height = height, .depth = depth, .colour = colour, .interlaced = interlaced};
          const Image image =
              decode(png(spec, [&](Index y, Index x, Index c) { return some(y, x, c, depth); }));
          ASSERT_EQ(image.height, height);
          ASSERT_EQ(image.width, width);
          ASSERT_EQ(image.channels, channels_of(colour));
          ASSERT_EQ(image.depth, std::max(depth, 8));
          const int scale = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
          for (Index y = 0; y < height; ++y)
            for (Index x = 0; x < width; ++x)
              for (Index c = 0; c < image.channels; ++c)
                ASSERT_EQ(at(image, y, x, c), some(y, x, c, depth) * scale)
                    << colour << " of " << depth << " bits";
        }
      }
}

TEST(ImagePng, ReadsPalettesAndTransparentColours) {
  PngSpec spec{.width = 5, .height = 3, .depth = 2, .colour = 3, .palette = "\1\2\3\4\5\6\7\x8\x9\xa\xb\xc"};
  const auto index = [](Index y, Index x, Index) { return (y + x) % 4; };
  for (const bool interlaced : {false, true}) {
    spec.interlaced = interlaced, spec.transparent.clear();
    const Image rgb = decode(png(spec, index));
    ASSERT_EQ(rgb.channels, 3);
    EXPECT_EQ(at(rgb, 1, 2, 1), 3 * 3 + 2);
    spec.transparent = "\x40\x80";
    const Image rgba = decode(png(spec, index));
    ASSERT_EQ(rgba.channels, 4);
    EXPECT_EQ(at(rgba, 0, 0, 3), 0x40);
    EXPECT_EQ(at(rgba, 0, 1, 3), 0x80);
    EXPECT_EQ(at(rgba, 0, 2, 3), 0xff);
  }
  const PngSpec gray{.width = 2, .height = 1, .depth = 16, .colour = 0, .transparent = "\x12\x34"};
  const Image keyed = decode(png(gray, [](Index, Index x, Index) { return 0x1234 + x; }));
  ASSERT_EQ(keyed.channels, 2);
  EXPECT_EQ(at(keyed, 0, 0, 1), 0);
  EXPECT_EQ(at(keyed, 0, 1, 1), 0xffff);
}

TEST(ImagePng, ComesBackByteForByte) {
  const test::TempDir dir;
  for (const int depth : {8, 16})
    for (Index channels = 1; channels <= 4; ++channels)
      for (const auto& [height, width] : {std::pair<Index, Index>{1, 1}, {13, 11}, {64, 48}}) {
        const Image image = pattern(height, width, channels, depth);
        write_image(dir.path("x.png"), image);
        const Image back = read_image(dir.path("x.png"));
        ASSERT_EQ(back.height, height);
        ASSERT_EQ(back.width, width);
        ASSERT_EQ(back.channels, channels);
        ASSERT_EQ(back.depth, depth);
        EXPECT_EQ(back.bytes, image.bytes);
      }
}

TEST(ImagePng, TruncatedAnywhereIsRefused) {
  const std::string bytes = encode_image(pattern(9, 7, 3, 8), ImageFormat::png);
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_EQ(outcome(bytes.substr(0, n)), "InvalidImage") << n;
  std::string changed = bytes;
  for (std::size_t i = 8; i < bytes.size(); ++i) {  // every chunk has a checksum
    changed[i] = static_cast<char>(changed[i] ^ 0x55);
    EXPECT_NE(outcome(changed), "OK") << i;
    changed[i] = bytes[i];
  }
}

TEST(ImagePng, PromisesAreCheckedBeforeAllocation) {
  const auto with_size = [](Index width, Index height) {
    const PngSpec spec{.width = 1, .height = 1};
    std::string bytes = png(spec, [](Index, Index, Index) { return 0; });
    return bytes.replace(
        8, 25,
        chunk(concat("IHDR", big(static_cast<std::uint64_t>(width), 4),
                     big(static_cast<std::uint64_t>(height), 4), std::string("\x8\2\0\0\0", 5))));
  };
  for (const auto& [width, height] :
       {std::pair<Index, Index>{100'000, 100'000}, {1 << 20, 1 << 20}, {1, 1 << 20}, {1 << 20, 1}}) {
    const std::string bytes = with_size(width, height);
    test::AllocationMeter meter;
    EXPECT_EQ(outcome(bytes), "ImageTooLarge");
    EXPECT_LT(meter.peak(), 64u << 10);
  }
  EXPECT_EQ(outcome(with_size(1 << 21, 1)), "InvalidImage");
  EXPECT_EQ(outcome(with_size(0, 1)), "InvalidImage");
  EXPECT_EQ(outcome(with_size(1, 2)), "InvalidImage");
}

double difference(const Image& a, const Image& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.bytes.size(); ++i) sum += std::abs(a.bytes[i] - b.bytes[i]);
  return sum / static_cast<double>(a.bytes.size());
}

Image smooth(Index height, Index width, Index channels) {
  Image image = make_image(height, width, channels, 8);
  for (Index y = 0, i = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x)
      for (Index c = 0; c < channels; ++c, ++i)
        image.bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(100 + 3 * y - 2 * x + 40 * c);
  return image;
}

TEST(ImageJpeg, ComesBackNearly) {
  const test::TempDir dir;
  for (const Index channels : {1, 3})
    for (const auto& [height, width] : {std::pair<Index, Index>{1, 1}, {13, 11}, {32, 40}})
      for (const char* name : {"x.jpg", "x.JPEG"}) {
        const Image image = smooth(height, width, channels);
        write_image(dir.path(name), image, {.jpeg_quality = 98});
        const Image back = read_image(dir.path(name));
        ASSERT_EQ(back.height, height);
        ASSERT_EQ(back.width, width);
        ASSERT_EQ(back.channels, channels);
        EXPECT_LT(difference(back, image), 1.5) << height << " x " << width << " x " << channels;
      }
  EXPECT_LT(encode_image(pattern(32, 32, 3, 8), ImageFormat::jpeg, {.jpeg_quality = 20}).size(),
            encode_image(pattern(32, 32, 3, 8), ImageFormat::jpeg, {.jpeg_quality = 95}).size());
}

TEST(ImageJpeg, TruncatedAnywhereIsRefused) {
  const std::string bytes = encode_image(pattern(24, 40, 3, 8), ImageFormat::jpeg);
  for (std::size_t n = 0; n < bytes.size() - 2; ++n)
    EXPECT_EQ(outcome(bytes.substr(0, n)), "InvalidImage") << n;
  std::string changed = bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {  // nothing shows under a sanitizer
    changed[i] = static_cast<char>(changed[i] ^ 0x55);
    outcome(changed);
    changed[i] = bytes[i];
  }
}

TEST(ImageJpeg, RefusesCmykAndPromises) {
  const auto header = [](int components, int height, int width) {
    std::string frame =
        concat(std::string("\x8", 1), big(static_cast<std::uint64_t>(height), 2),
               big(static_cast<std::uint64_t>(width), 2), std::string(1, static_cast<char>(components)));
    std::string scan(1, static_cast<char>(components));
    for (int c = 1; c <= components; ++c) {
      frame += std::string{static_cast<char>(c), 0x11, 0};
      scan += std::string{static_cast<char>(c), 0};
    }
    scan += std::string("\0\x3f\0", 3);
    return concat("\xff\xd8\xff\xc0", big(frame.size() + 2, 2), frame, "\xff\xda", big(scan.size() + 2, 2),
                  scan, "\xff\xd9");
  };
  EXPECT_EQ(outcome(header(4, 8, 8)), "UnsupportedImage");
  EXPECT_EQ(outcome(header(2, 8, 8)), "UnsupportedImage");
  const std::string bomb = header(3, 65000, 65000);
  test::AllocationMeter meter;
  EXPECT_EQ(outcome(bomb), "ImageTooLarge");
  EXPECT_LT(meter.peak(), 64u << 10);
  EXPECT_EQ(outcome(header(3, 8, 8)), "InvalidImage");  // no tables
}

TEST(ImageJpeg, IsTurnedAsExifSays) {
  // A dark left half above a bright lower edge, so that every one of the eight orientations differs.
  Image image = make_image(32, 48, 1, 8);
  for (Index y = 0; y < 32; ++y)
    for (Index x = 0; x < 48; ++x)
      image.bytes[static_cast<std::size_t>(y * 48 + x)] =
          static_cast<std::uint8_t>((x < 24 ? 0 : 100) + (y < 16 ? 0 : 50));
  const std::string bytes = encode_image(image, ImageFormat::jpeg);
  const auto corners = [&](int orientation, bool motorola) {
    const auto n = [&](std::uint64_t x, int k) {
      std::string s = big(x, k);
      if (!motorola) std::reverse(s.begin(), s.end());
      return s;
    };
    const std::string tiff = concat(motorola ? "MM" : "II", n(42, 2), n(8, 4), n(1, 2), n(0x112, 2), n(3, 2),
                                    n(1, 4), n(static_cast<std::uint64_t>(orientation), 2), n(0, 2), n(0, 4));
    const std::string exif = concat(std::string_view("Exif\0\0", 6), tiff);
    const Image turned = decode(concat("\xff\xd8\xff\xe1", big(exif.size() + 2, 2), exif, bytes.substr(2)));
    EXPECT_EQ(turned.width, orientation < 5 ? 48 : 32);
    std::vector<int> all;  // top left, top right, bottom left, bottom right, in steps of 50
    for (const Index y : {Index{4}, turned.height - 5})
      for (const Index x : {Index{4}, turned.width - 5}) all.push_back((at(turned, y, x, 0) + 25) / 50);
    return all;
  };
  using Corners = std::vector<int>;
  const Corners want[] = {{0, 2, 1, 3}, {2, 0, 3, 1}, {3, 1, 2, 0}, {1, 3, 0, 2},
                          {0, 1, 2, 3}, {1, 0, 3, 2}, {3, 2, 1, 0}, {2, 3, 0, 1}};
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const bool motorola : {false, true})
      EXPECT_EQ(corners(orientation, motorola), want[orientation - 1]) << orientation;
  EXPECT_EQ(corners(1, true), want[0]);
}

TEST(Image, ConvertsToFloatsAndBack) {
  for (const int depth : {8, 16}) {
    const Image image = pattern(13, 11, 4, depth);
    std::vector<float> floats(13 * 11 * 4);
    image_to_floats(image, 0, {floats.data(), {13, 11, 4}});
    const float most = depth == 8 ? 255.0f : 65535.0f;
    EXPECT_EQ(floats[5], static_cast<float>(at(image, 0, 1, 1)) / most);
    Image back = make_image(13, 11, 4, depth);
    floats_to_image(View<float, 3>(floats.data(), {13, 11, 4}), 0, back);
    EXPECT_EQ(back.bytes, image.bytes);
    std::vector<float> alpha(13 * 11);
    image_to_floats(image, 3, {alpha.data(), {13, 11, 1}});
    EXPECT_EQ(alpha[7], floats[7 * 4 + 3]);
  }
  Image three = make_image(1, 5, 1, 8);
  const float values[] = {-1.0f, 2.0f, std::numeric_limits<float>::quiet_NaN(), 0.5f, 100.49f / 255};
  floats_to_image(View<const float, 3>(values, {1, 5, 1}), 0, three);
  EXPECT_EQ(three.bytes, (std::vector<std::uint8_t>{0, 255, 0, 128, 100}));
}

TEST(Image, RefusesWhatDoesNotFit) {
  const test::TempDir dir;
  EXPECT_EQ(outcome(""), "InvalidImage");
  EXPECT_EQ(outcome("GIF89a"), "InvalidImage");
  EXPECT_EQ(kind([&] { read_image(dir.path("none.png")); }), "FileNotFound");
  EXPECT_EQ(kind([&] { write_image(dir.path("x.gif"), pattern(1, 1, 3, 8)); }), "InvalidArgument");
  EXPECT_EQ(kind([&] { write_image(dir.path("x.jpg"), pattern(1, 1, 4, 8)); }), "UnsupportedImage");
  EXPECT_EQ(kind([&] { write_image(dir.path("x.jpg"), pattern(1, 1, 3, 16)); }), "UnsupportedImage");
  EXPECT_EQ(kind([&] { write_image(dir.path("no/x.png"), pattern(1, 1, 3, 8)); }), "FileUnwritable");
  EXPECT_EQ(kind([&] { write_image(dir.path("x.png"), Image{}); }), "InvalidArgument");
  EXPECT_EQ(kind([&] { write_image(dir.path("x.jpg"), pattern(1, 1, 3, 8), {.jpeg_quality = 0}); }),
            "InvalidArgument");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  Image image = pattern(2, 2, 3, 8);
  float f[16] = {};
  EXPECT_EQ(kind([&] { image_to_floats(image, 1, {f, {2, 2, 3}}); }), "InvalidArgument");
  EXPECT_EQ(kind([&] { floats_to_image(View<float, 3>(f, {2, 3, 1}), 0, image); }), "InvalidArgument");
}

}  // namespace
}  // namespace ashlar
