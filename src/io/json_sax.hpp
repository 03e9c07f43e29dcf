// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// The events of a JSON text, with the parser's complaint as an Error of one kind. The parser does not
// recurse.
class JsonHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonHandler(std::string_view what, std::string_view kind) : what_(what), kind_(kind) {}
  // Feeds a text, already known to be UTF-8, to the handler.
  void parse(std::string_view text);

 protected:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw Error(kind_, concat(what_, ": ", parts...));
  }
  // To be called where an array or an object begins.
  void enter(int limit) {
    if (++depth_ > limit) fail("JSON nested more than ", limit, " deep");
  }
  void leave() { --depth_; }

 private:
  bool binary(binary_t&) override { fail("binary data in JSON"); }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& e) override;

  std::string_view what_, kind_;
  int depth_ = 0;
};

// At most `limit` bytes of a UTF-8 text, cut between characters, for a message.
std::string_view shortened(std::string_view text, std::size_t limit = 80);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
