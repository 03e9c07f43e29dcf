// SPDX-License-Identifier: Apache-2.0
#include "src/io/tokenizer_regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>

#include "src/io/tokenizer_text.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {
namespace {

constexpr std::uint32_t kHeapKiB = 64 << 10;
constexpr std::size_t kJitStackBytes = 32 << 20;

struct Freer {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <class T>
using Handle = std::unique_ptr<T, Freer>;

template <class T>
Handle<T> checked(T* p) {
  if (!p) throw Error("OutOfMemory", "tokenizer: no memory for PCRE2");
  return Handle<T>(p);
}

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return concat("PCRE2 error ", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

Regex::Regex(std::string_view oniguruma) : pattern_(oniguruma) {
  const std::string pattern = pcre_pattern(oniguruma);
  const auto context = checked(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  constexpr std::uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions,
                                   &error, &where, context.get());
  if (!code)
    unsupported("PCRE2 cannot take the pattern \"", brief(oniguruma), "\": ", message_of(error), " at byte ",
                where, " of \"", brief(pattern), "\"");
  code_ = std::shared_ptr<const void>(code, [](const void* p) {
    pcre2_code_free(const_cast<pcre2_code*>(static_cast<const pcre2_code*>(p)));
  });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter runs
}

struct Matcher::State {
  const Regex* regex;
  const pcre2_code* code;
  Handle<pcre2_match_data> data;
  Handle<pcre2_match_context> context;
  Handle<pcre2_jit_stack> stack;  // made when the machine stack's 32 KiB do not suffice
};

Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->regex = &regex;
  state_->code = static_cast<const pcre2_code*>(regex.code_.get());
  state_->data = checked(pcre2_match_data_create(1, nullptr));
  state_->context = checked(pcre2_match_context_create(nullptr));
  pcre2_set_heap_limit(state_->context.get(), kHeapKiB);
}
Matcher::~Matcher() = default;
Matcher::Matcher(Matcher&&) noexcept = default;

bool Matcher::find(std::string_view subject, std::size_t from, std::size_t& begin, std::size_t& end) {
  State& s = *state_;
  // A run of white space is tried and given back once a character, so the limits grow with the text.
  const auto limit =
      static_cast<std::uint32_t>(std::min<std::size_t>(1'000'000 + 16 * subject.size(), 1u << 31));
  pcre2_set_match_limit(s.context.get(), limit);
  pcre2_set_depth_limit(s.context.get(), limit);
  const auto match = [&] {
    return pcre2_match(s.code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                       PCRE2_NO_UTF_CHECK, s.data.get(), s.context.get());
  };
  int found = match();
  if (found == PCRE2_ERROR_JIT_STACKLIMIT && !s.stack) {
    s.stack = checked(pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr));
    pcre2_jit_stack_assign(s.context.get(), nullptr, s.stack.get());
    found = match();
  }
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0)
    unsupported("the pattern \"", brief(s.regex->pattern()), "\" failed on a text of ", subject.size(),
                " bytes: ", message_of(found));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(s.data.get());
  begin = bounds[0], end = bounds[1];
  if (begin < from || end < begin || end > subject.size())
    unsupported("the pattern \"", brief(s.regex->pattern()), "\" matched backwards");
  return true;
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
