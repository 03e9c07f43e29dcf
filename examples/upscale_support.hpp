// SPDX-License-Identifier: Apache-2.0
// What upscale needs around the library: a bar that shows how far it is, the memory there is, pictures in a
// row.
#pragma once
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "ashlar/io/image.hpp"

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// On a terminal, one line that is drawn over; elsewhere nothing.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what) : what_(std::move(what)), shown_(isatty(STDERR_FILENO) != 0) {}
  void operator()(ashlar::Index done, ashlar::Index total) {
    if (!shown_) return;
    constexpr int kWidth = 32;
    const double part = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
    const int filled = static_cast<int>(part * kWidth);
    std::string bar(kWidth, '-');
    std::fill_n(bar.begin(), filled, '#');
    std::fprintf(stderr, "\r%s [%s] %3.0f %%", what_.c_str(), bar.c_str(), 100 * part);
    if (done > 0) {
      const double left = seconds_since(start_) * (1 - part) / part;
      if (left >= 60)
        std::fprintf(stderr, ", %.0f min %02.0f s left", std::floor(left / 60),
                     std::floor(left - 60 * std::floor(left / 60)));
      else
        std::fprintf(stderr, ", %.0f s left", left);
    }
    std::fputs("\033[K", stderr);
    if (done == total) std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
  }

 private:
  std::string what_;
  bool shown_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Bytes that the system would still give; in a container, what its limit leaves.
inline ashlar::Index free_memory() {
  ashlar::Index free = ashlar::Index{4} << 30;
  std::ifstream info("/proc/meminfo");
  for (std::string word; info >> word;)
    if (word == "MemAvailable:" && info >> free) {
      free *= 1024;
      break;
    }
  ashlar::Index limit = 0, used = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit &&
      std::ifstream("/sys/fs/cgroup/memory.current") >> used)
    free = std::min(free, std::max<ashlar::Index>(limit - used, 0));
  return free;
}

inline double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // kilobytes on Linux
}

// Pictures of one size and kind in a row, with white between them.
inline ashlar::Image side_by_side(const std::vector<ashlar::Image>& pictures) {
  using ashlar::Index;
  constexpr Index kGap = 4;
  const ashlar::Image& first = pictures.front();
  const Index n = static_cast<Index>(pictures.size());
  ashlar::Image row =
      ashlar::make_image(first.height, n * first.width + (n - 1) * kGap, first.channels, first.depth);
  std::fill(row.bytes.begin(), row.bytes.end(), std::uint8_t{255});
  const Index pixel = first.channels * (first.depth / 8), bytes = first.width * pixel;
  for (Index i = 0; i < n; ++i)
    for (Index y = 0; y < first.height; ++y)
      std::copy_n(pictures[static_cast<std::size_t>(i)].bytes.begin() + y * bytes, bytes,
                  row.bytes.begin() + (y * row.width + i * (first.width + kGap)) * pixel);
  return row;
}

// With 8 bits a sample, for formats that have no more.
inline ashlar::Image with_8_bits(const ashlar::Image& image) {
  if (image.depth == 8) return image;
  ashlar::Image out = ashlar::make_image(image.height, image.width, image.channels, 8);
  std::vector<float> floats(static_cast<std::size_t>(image.width * image.channels));
  for (ashlar::Index y = 0; y < image.height; ++y) {
    ashlar::Image row{.height = 1, .width = image.width, .channels = image.channels, .depth = 16};
    const auto begin = image.bytes.begin() + y * image.width * image.channels * 2;
    row.bytes.assign(begin, begin + image.width * image.channels * 2);
    const ashlar::View<float, 3> view{floats.data(), {1, image.width, image.channels}};
    ashlar::image_to_floats(row, 0, view);
    ashlar::Image narrow = ashlar::make_image(1, image.width, image.channels, 8);
    ashlar::floats_to_image(view, 0, narrow);
    std::copy(narrow.bytes.begin(), narrow.bytes.end(), out.bytes.begin() + y * image.width * image.channels);
  }
  return out;
}
