// SPDX-License-Identifier: Apache-2.0
#include "src/io/pickle.hpp"

#include <bit>

#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

// Opcodes as pickletools names them.
enum Opcode : unsigned char {
  MARK = '(',
  EMPTY_TUPLE = ')',
  STOP = '.',
  POP = '0',
  DUP = '2',
  BINBYTES = 'B',
  SHORT_BINBYTES = 'C',
  BINFLOAT = 'G',
  BININT = 'J',
  BININT1 = 'K',
  BININT2 = 'M',
  NONE = 'N',
  BINPERSID = 'Q',
  REDUCE = 'R',
  SHORT_BINSTRING = 'U',
  BINUNICODE = 'X',
  EMPTY_LIST = ']',
  APPEND = 'a',
  BUILD = 'b',
  GLOBAL = 'c',
  APPENDS = 'e',
  BINGET = 'h',
  LONG_BINGET = 'j',
  BINPUT = 'q',
  LONG_BINPUT = 'r',
  SETITEM = 's',
  TUPLE = 't',
  SETITEMS = 'u',
  EMPTY_DICT = '}',
  PROTO = 0x80,
  NEWOBJ = 0x81,
  TUPLE1 = 0x85,
  TUPLE2 = 0x86,
  TUPLE3 = 0x87,
  NEWTRUE = 0x88,
  NEWFALSE = 0x89,
  LONG1 = 0x8a,
  LONG4 = 0x8b,
  SHORT_BINUNICODE = 0x8c,
  BINUNICODE8 = 0x8d,
  EMPTY_SET = 0x8f,
  ADDITEMS = 0x90,
  STACK_GLOBAL = 0x93,
  MEMOIZE = 0x94,
  FRAME = 0x95
};

}  // namespace

std::string_view Unpickler::take(std::uint64_t bytes) {
  if (bytes > text_.size() - at_)
    fail("PickleTruncated", "its pickle ends at byte ", text_.size(), " inside a value or before STOP");
  const std::string_view part = text_.substr(at_, bytes);
  at_ += bytes;
  return part;
}

std::string_view Unpickler::take_line() {
  const std::size_t end = text_.find('\n', at_);
  if (end == text_.npos) fail("PickleTruncated", "its pickle ends inside a name");
  const std::string_view line = text_.substr(at_, end - at_);
  at_ = end + 1;
  return line;
}

std::uint64_t Unpickler::take_number(int bytes) {
  const std::string_view part = take(static_cast<std::uint64_t>(bytes));
  std::uint64_t x = 0;
  for (int i = bytes - 1; i >= 0; --i) x = x << 8 | static_cast<unsigned char>(part[i]);
  return x;
}

void Unpickler::push(PickleItem item) {
  if (stack_.size() >= kPickleStack)
    fail("PickleTooDeep", "its pickle stacks more than ", kPickleStack, " values");
  stack_.push_back(item);
}

PickleItem& Unpickler::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back()))
    fail("PickleStackUnderflow", "its pickle takes a value from an empty stack at byte ", at_ - 1);
  return stack_.back();
}

PickleItem Unpickler::pop() {
  const PickleItem item = top();
  stack_.pop_back();
  return item;
}

std::size_t Unpickler::pop_mark() {
  if (marks_.empty()) fail("PickleStackUnderflow", "its pickle takes a mark that it did not set");
  const std::size_t at = marks_.back();
  marks_.pop_back();
  return at;
}

std::vector<PickleItem> Unpickler::pop_to_mark() {
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(pop_mark());
  std::vector<PickleItem> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  return items;
}

PickleItem Unpickler::run() {
  for (;;) {
    const auto opcode = static_cast<unsigned char>(take(1)[0]);
    if (opcode == STOP) return pop();
    step(opcode);
  }
}

void Unpickler::step(unsigned char opcode) {
  switch (opcode) {
    case PROTO:
      if (const std::uint64_t version = take_number(1); version > 5)
        fail("ForbiddenOpcode", "pickle protocol ", version, ", expected 2 to 5");
      return;
    case FRAME: take(8); return;
    case MARK:
      if (marks_.size() >= kPickleStack)
        fail("PickleTooDeep", "its pickle sets more than ", kPickleStack, " marks");
      return marks_.push_back(stack_.size());
    case POP:
      if (!marks_.empty() && marks_.back() == stack_.size()) return marks_.pop_back();
      return pop(), void();
    case DUP: return push(top());
    case NONE: return push({});
    case NEWTRUE: return push(PickleItem::of(1, PickleItem::boolean));
    case NEWFALSE: return push(PickleItem::of(0, PickleItem::boolean));
    case BININT: return push(PickleItem::of(static_cast<std::int32_t>(take_number(4))));
    case BININT1: return push(PickleItem::of(static_cast<std::int64_t>(take_number(1))));
    case BININT2: return push(PickleItem::of(static_cast<std::int64_t>(take_number(2))));
    case LONG1: return push_long(take(take_number(1)));
    case LONG4: return push_long(take(take_number(4)));
    case BINFLOAT: {
      std::uint64_t u = 0;  // big-endian
      for (const char c : take(8)) u = u << 8 | static_cast<unsigned char>(c);
      return push(PickleItem::of_real(std::bit_cast<double>(u)));
    }
    case SHORT_BINSTRING: return push_string(take(take_number(1)), false);
    case SHORT_BINUNICODE: return push_string(take(take_number(1)), true);
    case BINUNICODE: return push_string(take(take_number(4)), true);
    case BINUNICODE8: return push_string(take(take_number(8)), true);
    case SHORT_BINBYTES: take(take_number(1)); return push_opaque("bytes");
    case BINBYTES: take(take_number(4)); return push_opaque("bytes");
    case EMPTY_TUPLE: return push_tuple({});
    case TUPLE1:
    case TUPLE2:
    case TUPLE3: {
      std::vector<PickleItem> items(opcode - TUPLE1 + 1);
      for (std::size_t i = items.size(); i-- > 0;) items[i] = pop();
      return push_tuple(std::move(items));
    }
    case TUPLE: return push_tuple(pop_to_mark());
    case EMPTY_LIST:
    case EMPTY_SET: return push(PickleItem::at(PickleItem::list, add(heap_.lists, {})));
    case EMPTY_DICT: return push(PickleItem::at(PickleItem::dict, add(heap_.dicts, {})));
    case APPEND: return append({pop()});
    case APPENDS:
    case ADDITEMS: return append(pop_to_mark());
    case SETITEM: {
      const PickleItem value = pop(), key = pop();
      return set_items({key, value});
    }
    case SETITEMS: return set_items(pop_to_mark());
    case BINPUT: return remember(take_number(1));
    case LONG_BINPUT: return remember(take_number(4));
    case MEMOIZE: return remember(memo_.size());
    case BINGET: return recall(take_number(1));
    case LONG_BINGET: return recall(take_number(4));
    case GLOBAL: {
      const std::string_view module = take_line();
      return push_global(module, take_line());
    }
    case STACK_GLOBAL: return stack_global();
    case REDUCE:
    case NEWOBJ: return reduce();
    case BUILD: return build();
    case BINPERSID: return persistent_storage();
    default: break;
  }
  const char hex[] = "0123456789abcdef";
  const std::string code =
      opcode > 0x20 && opcode < 0x7f ? concat(std::string(1, static_cast<char>(opcode)), " ") : std::string();
  fail("ForbiddenOpcode", "its pickle has the opcode ", code, "(0x", std::string(1, hex[opcode >> 4]),
       std::string(1, hex[opcode & 15]), ") at byte ", at_ - 1, ", which no checkpoint needs");
}

void Unpickler::push_string(std::string_view text, bool utf8) {
  if (utf8 && find_invalid_utf8(text) != text.size())
    fail("PickleBadValue", "a string of its pickle, before byte ", at_, ", is not UTF-8");
  push(PickleItem::at(PickleItem::string, add(heap_.strings, text)));
}

void Unpickler::push_long(std::string_view bytes) {
  if (bytes.size() > 8) return push_opaque("int");
  std::uint64_t u = !bytes.empty() && (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
  for (std::size_t i = bytes.size(); i-- > 0;) u = u << 8 | static_cast<unsigned char>(bytes[i]);
  push(PickleItem::of(static_cast<std::int64_t>(u)));
}

void Unpickler::push_tuple(std::vector<PickleItem> items) {
  push(PickleItem::at(PickleItem::tuple, add(heap_.lists, std::move(items))));
}

void Unpickler::push_opaque(std::string_view type) {
  PickleGlobal global;
  global.name = type;
  push(PickleItem::at(PickleItem::opaque, add(heap_.globals, global)));
}

void Unpickler::push_global(std::string_view module, std::string_view name) {
  push(PickleItem::at(PickleItem::global, add(heap_.globals, pickle_global(module, name, what_))));
}

void Unpickler::stack_global() {
  const PickleItem name = pop(), module = pop();
  if (name.kind != PickleItem::string || module.kind != PickleItem::string)
    fail("PickleBadValue", "a name of its pickle, before byte ", at_, ", is not a string");
  push_global(heap_.strings[module.index], heap_.strings[name.index]);
}

void Unpickler::remember(std::uint64_t slot) {
  if (slot >= kPickleNodes)
    fail("PickleBadMemo", "its pickle uses the memo's slot ", slot, ", beyond ", kPickleNodes);
  memo_[slot] = top();
}

void Unpickler::recall(std::uint64_t slot) {
  const auto at = memo_.find(slot);
  if (at == memo_.end())
    fail("PickleBadMemo", "its pickle reads the memo's slot ", slot, ", which is empty, before byte ", at_);
  push(at->second);
}

void Unpickler::append(std::vector<PickleItem> items) {
  const PickleItem& to = top();
  if (to.kind == PickleItem::opaque) return;
  if (to.kind != PickleItem::list)
    fail("PickleBadValue", "its pickle appends to what is not a list, before byte ", at_);
  auto& list = heap_.lists[to.index];
  list.insert(list.end(), items.begin(), items.end());
}

void Unpickler::set_items(const std::vector<PickleItem>& items) {
  const PickleItem& to = top();
  if (items.size() % 2 != 0)
    fail("PickleBadValue", "its pickle sets a key without a value, before byte ", at_);
  if (to.kind == PickleItem::opaque) return;
  if (to.kind != PickleItem::dict)
    fail("PickleBadValue", "its pickle sets an entry of what is not a dictionary, before byte ", at_);
  auto& dict = heap_.dicts[to.index];
  for (std::size_t i = 0; i < items.size(); i += 2) dict.emplace_back(items[i], items[i + 1]);
}

// The attributes of an object, which are not wanted: a state dictionary's "_metadata", for one.
void Unpickler::build() {
  pop();
  const PickleItem::Kind kind = top().kind;
  if (kind != PickleItem::dict && kind != PickleItem::opaque)
    fail("ForbiddenOpcode", "its pickle has the opcode b (BUILD) at byte ", at_ - 1,
         " on what is neither a dictionary nor an opaque object");
}

void Unpickler::reduce() {
  const PickleItem arguments = pop(), callee = pop();
  if (callee.kind == PickleItem::opaque) return push(callee);  // whatever it would return
  if (callee.kind != PickleItem::global || arguments.kind != PickleItem::tuple)
    fail("PickleBadValue", "its pickle calls what has no name, or without a tuple, before byte ", at_);
  const PickleGlobal global = heap_.globals[callee.index];
  if (global.meaning == PickleName::opaque) return push(PickleItem::at(PickleItem::opaque, callee.index));
  push(call(global, heap_.lists[arguments.index]));
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
