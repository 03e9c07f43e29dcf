// SPDX-License-Identifier: Apache-2.0
#include "src/io/safetensors_header.hpp"

#include <algorithm>
#include <limits>
#include <tuple>

#include "ashlar/io/json.hpp"
#include "src/io/json_sax.hpp"
#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

struct NamedType {
  DType dtype;
  std::string_view name;
};

// In the order of the official enumeration.
constexpr NamedType kTypes[] = {{DType::boolean, "BOOL"},
                                {DType::f4, "F4"},
                                {DType::f6_e2m3, "F6_E2M3"},
                                {DType::f6_e3m2, "F6_E3M2"},
                                {DType::u8, "U8"},
                                {DType::i8, "I8"},
                                {DType::f8_e5m2, "F8_E5M2"},
                                {DType::f8_e4m3, "F8_E4M3"},
                                {DType::f8_e8m0, "F8_E8M0"},
                                {DType::f8_e4m3fnuz, "F8_E4M3FNUZ"},
                                {DType::f8_e5m2fnuz, "F8_E5M2FNUZ"},
                                {DType::i16, "I16"},
                                {DType::u16, "U16"},
                                {DType::f16, "F16"},
                                {DType::bf16, "BF16"},
                                {DType::i32, "I32"},
                                {DType::u32, "U32"},
                                {DType::f32, "F32"},
                                {DType::c64, "C64"},
                                {DType::f64, "F64"},
                                {DType::i64, "I64"},
                                {DType::u64, "U64"}};

// {"__metadata__": {string: string}, name: {"dtype": string, "shape": [u64...], "data_offsets": [u64,
// u64]}...} straight into entries: no tree of the text is ever held. Other members of a tensor are ignored,
// as by serde.
class HeaderHandler final : public JsonHandler {
 public:
  HeaderHandler(std::string_view what, SafetensorsHeader& into)
      : JsonHandler(what, "InvalidHeaderDeserialization"), header_(into) {}

 private:
  // What the next event must be.
  enum class At {
    start,
    name,
    metadata,
    metadata_key,
    metadata_string,
    tensor,
    field,
    dtype,
    shape,
    extents,
    offsets,
    places,
    ignored
  };
  enum Field { kDType = 1, kShape = 2, kOffsets = 4 };

  SafetensorsEntry& entry() { return header_.entries.back(); }
  bool to(At next) {
    at_ = next;
    return true;
  }
  // A value that is not the one expected: fine where the member is ignored.
  bool other(std::string_view found) {
    if (at_ == At::ignored) return ignored_depth_ == 0 ? to(At::field) : true;
    const std::string_view tensor = header_.entries.empty() ? "" : shortened(entry().name);
    switch (at_) {
      case At::metadata: fail("__metadata__ is ", found, ", expected an object of strings");
      case At::metadata_string: fail("__metadata__ holds ", found, ", expected strings alone");
      case At::dtype: fail("the dtype of \"", tensor, "\" is ", found, ", expected a string");
      case At::shape: fail("the shape of \"", tensor, "\" is ", found, ", expected an array");
      case At::extents:
        fail("the shape of \"", tensor, "\" holds ", found, ", expected integers from 0 to 2^64 - 1");
      case At::offsets:
      case At::places:
        fail("the data_offsets of \"", tensor, "\" hold ", found, ", expected two integers from 0");
      case At::tensor: fail("the tensor \"", tensor, "\" is ", found, ", expected an object");
      default: fail("the header is ", found, ", expected an object");
    }
  }

  bool null() override { return at_ == At::metadata ? to(At::name) : other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(std::int64_t) override { return other("a negative integer"); }
  bool number_float(double, const std::string&) override {
    return other("a fraction or a number beyond 64 bits");
  }
  bool number_unsigned(std::uint64_t u) override {
    if (at_ == At::extents) {
      shape_.push_back(u);
    } else if (at_ == At::places) {
      if (places_ == 2) fail("the data_offsets of \"", shortened(entry().name), "\" are more than two");
      (places_++ == 0 ? entry().begin : entry().end) = u;
    } else {
      return other("a number");
    }
    return true;
  }
  bool string(std::string& s) override {
    if (at_ == At::dtype) {
      const auto dtype = safetensors_dtype(s);
      if (!dtype)
        fail("the dtype of \"", shortened(entry().name), "\" is \"", shortened(s), "\", which is unknown");
      entry().dtype = *dtype;
      return to(At::field);
    }
    if (at_ != At::metadata_string) return other("a string");
    if (!header_.metadata.emplace(std::move(metadata_key_), std::move(s)).second)
      fail("__metadata__ has a name twice");
    return to(At::metadata_key);
  }

  bool start_object(std::size_t) override {
    enter(kJsonDepth);
    switch (at_) {
      case At::start: return to(At::name);
      case At::metadata: return to(At::metadata_key);
      case At::tensor: fields_ = 0; return to(At::field);
      case At::ignored: ++ignored_depth_; return true;
      default: return other("an object");
    }
  }
  bool start_array(std::size_t) override {
    enter(kJsonDepth);
    switch (at_) {
      case At::shape: shape_.clear(); return to(At::extents);
      case At::offsets: places_ = 0; return to(At::places);
      case At::ignored: ++ignored_depth_; return true;
      default: return other("an array");
    }
  }
  bool key(std::string& s) override {
    if (at_ == At::name) return s == "__metadata__" ? begin_metadata() : begin_tensor(s);
    if (at_ == At::metadata_key) metadata_key_ = std::move(s), at_ = At::metadata_string;
    if (at_ == At::field) begin_field(s);
    return true;
  }
  bool begin_metadata() {
    if (has_metadata_) fail("__metadata__ appears twice");
    has_metadata_ = true;
    return to(At::metadata);
  }
  bool begin_tensor(std::string& name) {
    header_.entries.emplace_back().name = std::move(name);
    return to(At::tensor);
  }
  void begin_field(std::string_view s) {
    const int field = s == "dtype" ? kDType : s == "shape" ? kShape : s == "data_offsets" ? kOffsets : 0;
    if ((fields_ & field) != 0) fail("the tensor \"", shortened(entry().name), "\" has \"", s, "\" twice");
    fields_ |= field;
    at_ = field == kDType     ? At::dtype
          : field == kShape   ? At::shape
          : field == kOffsets ? At::offsets
                              : At::ignored;
    ignored_depth_ = 0;
  }
  bool end_object() override {
    leave();
    if (at_ == At::ignored) return end_ignored();
    if (at_ == At::field && fields_ != (kDType | kShape | kOffsets))
      fail("the tensor \"", shortened(entry().name), "\" lacks ",
           (fields_ & kDType) == 0   ? "dtype"
           : (fields_ & kShape) == 0 ? "shape"
                                     : "data_offsets");
    return to(At::name);  // after the header's own end nothing follows
  }
  bool end_array() override {
    leave();
    if (at_ == At::ignored) return end_ignored();
    if (at_ == At::extents) entry().shape.assign(shape_.begin(), shape_.end());
    if (at_ == At::places && places_ != 2)
      fail("the data_offsets of \"", shortened(entry().name), "\" are ", places_, ", expected two");
    return to(At::field);
  }
  bool end_ignored() { return --ignored_depth_ == 0 ? to(At::field) : true; }

  SafetensorsHeader& header_;
  At at_ = At::start;
  bool has_metadata_ = false;
  std::string metadata_key_;
  int fields_ = 0, places_ = 0, ignored_depth_ = 0;
  std::vector<std::uint64_t> shape_;
};

void refuse_duplicates(std::string_view what, const std::vector<SafetensorsEntry>& entries) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const auto& e : entries) names.push_back(e.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw Error("InvalidHeaderDeserialization",
                concat(what, ": the tensor \"", shortened(*twice), "\" appears twice"));
}

// The product of the extents times the bits of an element; nothing when it, or a stride, does not fit.
std::optional<std::uint64_t> checked_bits(const SafetensorsEntry& e) {
  std::uint64_t elements = 1, bits_in_all = 0;
  Index nonzero = 1;
  for (const std::uint64_t extent : e.shape) {
    if (__builtin_mul_overflow(elements, extent, &elements)) return {};
    if (extent != 0 && __builtin_mul_overflow(nonzero, extent, &nonzero)) return {};
  }
  if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(bits(e.dtype)), &bits_in_all)) return {};
  return bits_in_all;
}

// Checks that the sorted entries cover [0, end) without holes and overlaps, each with just the bytes of its
// shape; returns the end.
std::uint64_t validate(std::string_view what, const std::vector<SafetensorsEntry>& entries) {
  std::uint64_t end = 0;
  for (const auto& e : entries) {
    const auto fail = [&](std::string_view kind, const auto&... reason) {
      throw Error(kind, concat(what, ": the tensor \"", shortened(e.name), "\" ", reason...));
    };
    if (e.begin != end || e.end < e.begin)
      fail("InvalidOffset", "has data_offsets [", e.begin, ", ", e.end, "], expected to begin at ", end);
    end = e.end;
    const auto size = checked_bits(e);
    if (!size) fail("ValidationOverflow", "has a shape whose size overflows 64 bits");
    if (*size % 8 != 0) fail("MisalignedSlice", "has ", *size, " bits, which are not whole bytes");
    if (e.end - e.begin != *size / 8)
      fail("TensorInvalidInfo", "has ", e.end - e.begin, " bytes of data, but its shape and dtype ",
           *size / 8);
  }
  return end;
}

}  // namespace

std::string_view safetensors_name(DType t) { return kTypes[safetensors_rank(t)].name; }

int safetensors_rank(DType t) {
  return static_cast<int>(std::find_if(std::begin(kTypes), std::end(kTypes) - 1,
                                       [&](const NamedType& n) { return n.dtype == t; }) -
                          std::begin(kTypes));
}

std::optional<DType> safetensors_dtype(std::string_view name) {
  for (const auto& t : kTypes)
    if (t.name == name) return t.dtype;
  return {};
}

SafetensorsHeader read_safetensors_header(const MappedFile& file) {
  const std::string what = concat("safetensors \"", file.name(), "\"");
  if (file.size() < 8)
    throw Error("HeaderTooSmall", concat(what, ": ", file.size(), " bytes, expected at least 8"));
  unsigned char prefix[8];
  file.read(0, 8, prefix);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > kSafetensorsHeaderLimit)
    throw Error("HeaderTooLarge", concat(what, ": a header of ", length, " bytes, expected at most ",
                                         kSafetensorsHeaderLimit, "; is it a safetensors file?"));
  if (length > file.size() - 8)
    throw Error("InvalidHeaderLength",
                concat(what, ": a header of ", length, " bytes in a file of ", file.size(), " bytes"));

  const std::string text = file.read(8, length);
  if (const std::size_t at = find_invalid_utf8(text); at != text.size())
    throw Error("InvalidHeader", concat(what, ": byte ", at, " of the header is not UTF-8"));
  SafetensorsHeader header;
  header.data = 8 + length;
  HeaderHandler(what, header).parse(text);
  refuse_duplicates(what, header.entries);
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  const std::uint64_t end = validate(what, header.entries), available = file.size() - header.data;
  if (end != available)
    throw Error("MetadataIncompleteBuffer",
                concat(what, ": the tensors have ", end, " bytes of data, but the file ", available));
  return header;
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
