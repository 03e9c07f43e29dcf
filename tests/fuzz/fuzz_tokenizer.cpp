// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json and a text, divided by the first NUL: the file is refused or works, and streaming is
// decoding.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ashlar/io/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ashlar;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view json = input.substr(0, input.find('\0'));
  const std::string_view text = input.substr(std::min(json.size() + 1, size));
  try {
    const Tokenizer t = Tokenizer::from_json(json);
    const auto ids = t.encode(text.substr(0, 512));
    TokenStream stream(t);
    std::string streamed;
    for (std::int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    if (streamed != t.decode(ids)) std::abort();
    for (std::int32_t id : ids)
      if (t.id_of(t.token(id)) < 0) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
