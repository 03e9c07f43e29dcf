// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/tokenizer.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "src/io/tokenizer_bpe.hpp"
#include "src/io/tokenizer_stages.hpp"

namespace ashlar {
inline namespace v0 {

using namespace tok;

struct Tokenizer::Impl {
  struct Token {
    std::int32_t id;
    bool special;
    std::string_view text;
  };
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  Decoder decoder;
  std::vector<std::int32_t> before, after;  // what the post-processor puts around a text
  AddedTokenFinder raw, normalized;         // looked for before and after the normalizer
  std::vector<AddedToken> added;            // sorted by content
  std::vector<Token> tokens;                // sorted by id; all of them

  std::int32_t id_of(std::string_view token) const;
  const Token* find(std::int32_t id) const;
  const Token& at(std::int32_t id) const;
  void add_tokens(std::vector<AddedToken> list);
  void index();
  void post_process(const Value& part, int depth);
  void use_template(const Value& part);
};

namespace {

std::string read_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    throw Error("FileNotFound", concat("tokenizer: \"", path, "\" is no file"));
  std::ifstream in(path, std::ios::binary);
  const auto size = std::filesystem::file_size(path, error);
  std::string bytes(error ? 0 : static_cast<std::size_t>(size), '\0');
  if (error || !in.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw Error("FileNotFound", concat("tokenizer: \"", path, "\" cannot be read"));
  return bytes;
}

std::string repaired(std::string_view text) {
  std::string out;
  Utf8Repair repair;
  repair.push(text, out);
  repair.finish(out);
  return out;
}

// Errors of a file begin with its name.
template <class F>
auto named(std::string_view what, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    if (!what.empty() && what != "tokenizer") throw Error(e.kind(), concat(what, ": ", e.what()));
    throw;
  }
}

const Value& part_of(const Value& tree, std::string_view key) {
  static const Value none;
  const Value* v = tree.find(key);
  return v ? *v : none;
}

Bpe make_bpe(const Value& tree, TokenizerFile file) {
  const Value& model = part_of(tree, "model");
  if (!model.object()) invalid("there is no \"model\"");
  const std::string kind = text(model, "type", file.has_vocab && file.has_merges ? "BPE" : "");
  if (kind != "BPE") unsupported("the model \"", brief(kind), "\" is not BPE, the one that is supported");
  if (!file.has_vocab) invalid("model.vocab must be an object of tokens and their ids");
  if (!file.has_merges) invalid("model.merges must be an array of merges");
  BpeOptions o;
  o.unk_token = text(model, "unk_token", "");
  o.continuing_subword_prefix = text(model, "continuing_subword_prefix", "");
  o.end_of_word_suffix = text(model, "end_of_word_suffix", "");
  o.fuse_unk = flag(model, "fuse_unk", false);
  o.byte_fallback = flag(model, "byte_fallback", false);
  o.ignore_merges = flag(model, "ignore_merges", false);
  if (o.continuing_subword_prefix.size() + o.end_of_word_suffix.size() > 256)
    unsupported("the subword prefix and suffix have more than 256 bytes");
  return Bpe(std::move(file), std::move(o));
}

}  // namespace

std::int32_t Tokenizer::Impl::id_of(std::string_view token) const {
  const auto at =
      std::partition_point(added.begin(), added.end(), [&](const auto& t) { return t.content < token; });
  return at != added.end() && at->content == token ? at->id : bpe.vocabulary().id_of(token);
}

const Tokenizer::Impl::Token* Tokenizer::Impl::find(std::int32_t id) const {
  if (id >= 0 && static_cast<std::size_t>(id) < tokens.size())  // without gaps, the place is the id
    if (const Token& t = tokens[static_cast<std::size_t>(id)]; t.id == id) return &t;
  const auto at =
      std::partition_point(tokens.begin(), tokens.end(), [&](const Token& t) { return t.id < id; });
  return at != tokens.end() && at->id == id ? &*at : nullptr;
}

const Tokenizer::Impl::Token& Tokenizer::Impl::at(std::int32_t id) const {
  if (const Token* t = find(id)) return *t;
  refuse("tokenizer", "there is no token with id ", id, ", expected one of the ", tokens.size(), " below ",
         tokens.empty() ? 0 : tokens.back().id + 1);
}

void Tokenizer::Impl::add_tokens(std::vector<AddedToken> list) {
  std::vector<AddedToken> by_name = list;
  std::stable_sort(by_name.begin(), by_name.end(), [](auto& a, auto& b) { return a.content < b.content; });
  for (const AddedToken& t : by_name) {
    if (!added.empty() && added.back().content == t.content) {
      if (added.back().id != t.id) invalid("the added token \"", brief(t.content), "\" has two ids");
      continue;
    }
    const std::int32_t known = bpe.vocabulary().id_of(t.content);
    if (known >= 0 && known != t.id)
      invalid("the added token \"", brief(t.content), "\" has the id ", t.id, ", but ", known,
              " in model.vocab");
    added.push_back(t);
  }
  std::vector<AddedToken> in_raw, in_normalized;
  std::vector<std::string> raw_contents, normalized_contents;
  std::string buffer;
  for (AddedToken& t : list) {
    if (t.normalized) {
      normalized_contents.emplace_back(normalizer.apply(t.content, buffer));
      in_normalized.push_back(std::move(t));
    } else {
      raw_contents.push_back(t.content);
      in_raw.push_back(std::move(t));
    }
  }
  raw = AddedTokenFinder(std::move(in_raw), std::move(raw_contents));
  normalized = AddedTokenFinder(std::move(in_normalized), std::move(normalized_contents));
}

// The table of ids. Its texts point into the vocabulary and the added tokens, which stay where they are from
// now on.
void Tokenizer::Impl::index() {
  const Vocabulary& v = bpe.vocabulary();
  tokens.reserve(v.entries().size() + added.size());
  for (const Vocabulary::Entry& e : v.entries()) tokens.push_back({e.id, false, v.text(e)});
  const auto by_id = [](const Token& a, const Token& b) { return a.id < b.id; };
  std::sort(tokens.begin(), tokens.end(), by_id);
  const auto in_vocabulary = static_cast<std::ptrdiff_t>(tokens.size());
  for (const AddedToken& t : added) {
    const auto known =
        std::lower_bound(tokens.begin(), tokens.begin() + in_vocabulary, Token{t.id, false, {}}, by_id);
    if (known != tokens.begin() + in_vocabulary && known->id == t.id && known->text == t.content)
      known->special = t.special;
    else
      tokens.push_back({t.id, t.special, t.content});
  }
  std::sort(tokens.begin(), tokens.end(), by_id);
  const auto twice =
      std::adjacent_find(tokens.begin(), tokens.end(), [](auto& a, auto& b) { return a.id == b.id; });
  if (twice != tokens.end())
    invalid("\"", brief(twice->text), "\" and \"", brief((twice + 1)->text), "\" have the same id, ",
            twice->id);
}

void Tokenizer::Impl::post_process(const Value& part, int depth) {
  if (part.is_null()) return;
  const std::string kind = kind_of(part, "a post-processor");
  if (kind == "Sequence") {
    if (depth == static_cast<int>(kMostStages)) unsupported("post-processors nest too deep");
    for (const Value& v : required_array(part, "processors")) post_process(v, depth + 1);
  } else if (kind == "TemplateProcessing") {
    use_template(part);
  } else if (kind != "ByteLevel") {  // which changes offsets only
    unsupported("the post-processor \"", brief(kind),
                "\" is none of Sequence, ByteLevel, TemplateProcessing");
  }
}

void Tokenizer::Impl::use_template(const Value& part) {
  const Value& special = part_of(part, "special_tokens");
  std::vector<std::int32_t> left, right;
  bool seen = false;
  for (const Value& piece : required_array(part, "single")) {
    const Value *token = piece.find("SpecialToken"), *sequence = piece.find("Sequence");
    if (sequence) {
      if (seen || text(*sequence, "id", "") != "A")
        unsupported("a template with another sequence than A, once");
      seen = true;
      continue;
    }
    if (!token) invalid("an element of a template is neither SpecialToken nor Sequence");
    const std::string name = required_text(*token, "id");
    const Value* ids = special.find(name) ? special.find(name)->find("ids") : nullptr;
    if (!ids || !ids->array())
      invalid("the template's token \"", brief(name), "\" is not in its special_tokens");
    for (const Value& id : *ids->array()) {
      const std::int64_t n = id.integer() ? *id.integer() : -1;
      if (n < 0 || n > std::numeric_limits<std::int32_t>::max() || !find(static_cast<std::int32_t>(n)))
        invalid("the template's token \"", brief(name), "\" has an id that is no token's");
      (seen ? right : left).push_back(static_cast<std::int32_t>(n));
    }
  }
  if (!seen) invalid("a template has no sequence A");
  before.insert(before.begin(), left.begin(), left.end());
  after.insert(after.end(), right.begin(), right.end());
}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view what) {
  return named(what, [&] {
    auto impl = std::make_shared<Impl>();
    TokenizerFile file = parse_tokenizer_json(json);
    const Value tree = std::move(file.tree);
    impl->normalizer = Normalizer(part_of(tree, "normalizer"));
    impl->pre_tokenizer = PreTokenizer(part_of(tree, "pre_tokenizer"));
    impl->decoder = Decoder(part_of(tree, "decoder"));
    impl->bpe = make_bpe(tree, std::move(file));
    impl->add_tokens(read_added_tokens(tree.find("added_tokens")));
    impl->index();
    impl->post_process(part_of(tree, "post_processor"), 0);
    return Tokenizer(std::move(impl));
  });
}

Tokenizer Tokenizer::from_vocab_and_merges(std::string_view vocab, std::string_view merges,
                                           std::string_view what) {
  return named(what, [&] {
    const auto object = [](std::string_view type) {
      return Value(Value::Object{{"type", Value(std::string(type))}, {"add_prefix_space", Value(false)}});
    };
    auto impl = std::make_shared<Impl>();
    impl->pre_tokenizer = PreTokenizer(object("ByteLevel"));
    impl->decoder = Decoder(object("ByteLevel"));
    impl->bpe = Bpe(parse_vocab_and_merges(vocab, merges), {});
    std::vector<AddedToken> added;
    if (const std::int32_t id = impl->bpe.vocabulary().id_of("<|endoftext|>"); id >= 0)
      added.push_back({id, "<|endoftext|>", false, false, false, false, true});
    impl->add_tokens(std::move(added));
    impl->index();
    return Tokenizer(std::move(impl));
  });
}

Tokenizer Tokenizer::from_file(const std::string& path) { return from_json(read_file(path), path); }

Tokenizer Tokenizer::from_directory(const std::string& path) {
  const std::filesystem::path folder(path);
  std::error_code error;
  const auto has = [&](const char* name) { return std::filesystem::is_regular_file(folder / name, error); };
  if (has("tokenizer.json")) return from_file((folder / "tokenizer.json").string());
  if (!has("vocab.json") || !has("merges.txt"))
    throw Error("FileNotFound",
                concat("tokenizer: \"", path, "\" has neither tokenizer.json nor vocab.json and merges.txt"));
  return from_vocab_and_merges(read_file((folder / "vocab.json").string()),
                               read_file((folder / "merges.txt").string()), path);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  const Impl& t = *impl_;
  if (text.size() > std::size_t{1} << 30)
    refuse("tokenizer", "a text of ", text.size(), " bytes, expected at most 2^30; divide it");
  std::string fixed, buffer;
  if (!is_utf8(text)) text = fixed = repaired(text);
  std::vector<std::int32_t> ids;
  ids.reserve(16 + text.size() / 4);
  if (add_special_tokens) ids = t.before;
  PreTokenizer::Scratch scratch(t.pre_tokenizer);
  Bpe::Scratch merging;
  const PreTokenizer::Sink sink = [&](std::string_view piece) { t.bpe.encode(piece, merging, ids); };
  const char* input = text.data();
  t.raw.divide(text, [&](std::string_view part, std::int32_t id) {
    if (id >= 0) return ids.push_back(id);
    bool first = part.data() == input;
    t.normalized.divide(t.normalizer.apply(part, buffer), [&](std::string_view piece, std::int32_t known) {
      if (known >= 0)
        ids.push_back(known);
      else
        t.pre_tokenizer.split(piece, first, scratch, sink);
      first = false;
    });
  });
  if (add_special_tokens) ids.insert(ids.end(), t.after.begin(), t.after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  const Impl& t = *impl_;
  Decoder::State state = t.decoder.start();
  std::string out;
  for (std::int32_t id : ids) {
    const Impl::Token& token = t.at(id);
    if (!skip_special_tokens || !token.special) t.decoder.push(token.text, state, out);
  }
  t.decoder.finish(state, out);
  return out;
}

std::int32_t Tokenizer::id_of(std::string_view token) const { return impl_->id_of(token); }
std::string_view Tokenizer::token(std::int32_t id) const { return impl_->at(id).text; }
bool Tokenizer::is_special(std::int32_t id) const { return impl_->at(id).special; }
Index Tokenizer::vocab_size() const { return impl_->tokens.empty() ? 0 : Index{impl_->tokens.back().id} + 1; }

struct TokenStream::State {
  Decoder::State stages;
};

TokenStream::TokenStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : impl_(tokenizer.impl_),
      state_(std::make_unique<State>(State{impl_->decoder.start()})),
      skip_special_tokens_(skip_special_tokens) {}
TokenStream::TokenStream(const TokenStream& other)
    : impl_(other.impl_),
      state_(std::make_unique<State>(*other.state_)),
      skip_special_tokens_(other.skip_special_tokens_) {}
TokenStream::TokenStream(TokenStream&& other) noexcept = default;
TokenStream& TokenStream::operator=(TokenStream other) noexcept {
  impl_.swap(other.impl_);
  state_.swap(other.state_);
  std::swap(skip_special_tokens_, other.skip_special_tokens_);
  return *this;
}
TokenStream::~TokenStream() = default;

std::string TokenStream::push(std::int32_t id) {
  std::string out;
  const Tokenizer::Impl::Token& token = impl_->at(id);
  if (!skip_special_tokens_ || !token.special) impl_->decoder.push(token.text, state_->stages, out);
  return out;
}

std::string TokenStream::finish() {
  std::string out;
  impl_->decoder.finish(state_->stages, out);
  return out;
}

}  // namespace v0
}  // namespace ashlar
