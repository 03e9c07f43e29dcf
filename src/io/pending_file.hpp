// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// A file under a temporary name beside `path`, until publish() gives it its name; else it goes away.
class PendingFile {
 public:
  explicit PendingFile(const std::string& path) : path_(path) {
    static std::atomic<unsigned> counter{0};
    temporary_ = concat(path, ".", static_cast<Index>(getpid()), "-", static_cast<Index>(counter++), ".tmp");
    descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(errno);
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() {
    if (descriptor_ >= 0) close(descriptor_);
    if (!published_ && !temporary_.empty()) unlink(temporary_.c_str());
  }
  void write(const void* data, std::uint64_t bytes) {
    for (auto* from = static_cast<const char*>(data); bytes > 0;) {
      const ssize_t n = ::write(descriptor_, from, bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(errno);
      from += n, bytes -= static_cast<std::uint64_t>(n);
    }
  }
  void publish() {
    if (fsync(descriptor_) != 0) fail(errno);
    if (const int closed = close(std::exchange(descriptor_, -1)); closed != 0) fail(errno);
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
    published_ = true;
  }

 private:
  [[noreturn]] void fail(int code) const {
    throw Error("FileUnwritable",
                concat("file \"", path_, "\" cannot be written: ", std::generic_category().message(code)));
  }
  std::string path_, temporary_;
  int descriptor_ = -1;
  bool published_ = false;
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
