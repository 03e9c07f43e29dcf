// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace ashlar {
inline namespace v0 {

struct MappedFile::State {
  std::string name, memory;
  int descriptor = -1;
  std::uint64_t size = 0;
  void* mapping = nullptr;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (mapping != nullptr) munmap(mapping, size);
    if (descriptor >= 0) close(descriptor);
  }
};

namespace {

[[noreturn]] void unreadable(std::string_view name, std::string_view reason) {
  throw Error("FileUnreadable", concat("file \"", name, "\" cannot be read: ", reason));
}

[[noreturn]] void unreadable(std::string_view name, int code) {
  unreadable(name, std::generic_category().message(code));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  auto state = std::make_shared<State>();
  state->name = path;
  if (path.find('\0') != std::string::npos) unreadable(path, "its name holds a NUL");
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  state->descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (state->descriptor < 0) {
    if (errno != ENOENT && errno != ENOTDIR) unreadable(path, errno);
    throw Error("FileNotFound", concat("file \"", path, "\" does not exist"));
  }
  struct stat info {};
  if (fstat(state->descriptor, &info) != 0) unreadable(path, errno);
  if (S_ISDIR(info.st_mode)) unreadable(path, "it is a directory");
  if (!S_ISREG(info.st_mode)) unreadable(path, "it is not a regular file");
  state->size = static_cast<std::uint64_t>(info.st_size);
  if (state->size != 0) {
    void* p = mmap(nullptr, state->size, PROT_READ, MAP_PRIVATE, state->descriptor, 0);
    if (p == MAP_FAILED) unreadable(path, errno);
    state->mapping = p;
  }
  state_ = std::move(state);
}

MappedFile MappedFile::from_bytes(std::string bytes, std::string name) {
  auto state = std::make_shared<State>();
  state->name = std::move(name);
  state->memory = std::move(bytes);
  state->size = state->memory.size();
  MappedFile file;
  file.state_ = std::move(state);
  return file;
}

const std::string& MappedFile::name() const { return state_->name; }

std::uint64_t MappedFile::size() const { return state_->size; }

const std::byte* MappedFile::data() const {
  if (state_->size == 0) return nullptr;
  return static_cast<const std::byte*>(state_->mapping != nullptr ? state_->mapping : state_->memory.data());
}

void MappedFile::read(std::uint64_t offset, std::uint64_t count, void* into) const {
  if (offset > size() || count > size() - offset)
    refuse("MappedFile", "bytes ", offset, " to ", offset + count, " of \"", name(), "\", which has ",
           size());
  if (count == 0) return;
  if (state_->descriptor < 0) {
    std::memcpy(into, data() + offset, count);
    return;
  }
  for (auto* to = static_cast<char*>(into); count > 0;) {
    const ssize_t n = pread(state_->descriptor, to, count, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) unreadable(name(), errno);
    if (n == 0) unreadable(name(), "it became shorter while it was open");
    to += n, offset += static_cast<std::uint64_t>(n), count -= static_cast<std::uint64_t>(n);
  }
}

std::string MappedFile::read(std::uint64_t offset, std::uint64_t count) const {
  std::string bytes(offset <= size() && count <= size() - offset ? count : 0, '\0');
  read(offset, count, bytes.data());
  return bytes;
}

std::string read_text(const std::string& path) {
  const MappedFile file(path);
  return file.read(0, file.size());
}

}  // namespace v0
}  // namespace ashlar
