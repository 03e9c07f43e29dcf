// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/pth.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "ashlar/core/tensor.hpp"
#include "src/io/pth_storage.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

using detail::PickleHeap;
using detail::PickleItem;
using detail::PthContents;

// A pickle's values are a graph: they may be shared, and contain themselves. This copies them as a tree,
// after it has seen that the tree is neither deep nor much larger than the graph.
class TreeBuilder {
 public:
  TreeBuilder(const PthContents& contents, std::string_view what) : contents_(contents), what_(what) {}

  PthValue build() {
    const std::uint64_t nodes = heap().lists.size() + heap().dicts.size() + heap().strings.size();
    if (measure(contents_.root, 0).values > (1u << 16) + 16 * nodes)
      fail("PickleTooLarge", "its values repeat one another without bound");
    return convert(contents_.root);
  }

 private:
  struct Measure {
    int depth = 1;
    std::uint64_t values = 1;
    bool done = false;
  };

  template <class... Parts>
  [[noreturn]] void fail(std::string_view kind, const Parts&... parts) const {
    throw Error(kind, concat(what_, ": ", parts...));
  }
  const PickleHeap& heap() const { return contents_.heap; }

  Measure measure(const PickleItem& item, int outside) {
    if (!item.is_container()) return {};
    auto& known = item.kind == PickleItem::dict ? dicts_ : lists_;
    // One that is there and not done is being measured: it contains itself.
    const auto [at, fresh] = known.try_emplace(item.index);
    if ((!fresh && !at->second.done) || outside >= detail::kPickleDepth)
      fail("PickleTooDeep", "its values are more than ", detail::kPickleDepth, " deep, or inside themselves");
    if (!fresh) return at->second;
    Measure total;
    const auto add = [&](const PickleItem& member) {
      const Measure m = measure(member, outside + 1);
      total.depth = std::max(total.depth, m.depth + 1);
      if (__builtin_add_overflow(total.values, m.values, &total.values)) total.values = ~std::uint64_t{0};
    };
    if (item.kind == PickleItem::dict) {
      for (const auto& [key, value] : heap().dicts[item.index]) add(key), add(value);
    } else {
      for (const PickleItem& member : heap().lists[item.index]) add(member);
    }
    if (outside + total.depth > detail::kPickleDepth + 1)
      fail("PickleTooDeep", "its values are more than ", detail::kPickleDepth, " deep");
    total.done = true;
    return known[item.index] = total;
  }

  PthValue convert(const PickleItem& item) const {
    switch (item.kind) {
      case PickleItem::none: return {};
      case PickleItem::boolean: return item.integer_value != 0;
      case PickleItem::integer: return item.integer_value;
      case PickleItem::real: return item.real_value;
      case PickleItem::string: return std::string(heap().strings[item.index]);
      case PickleItem::list:
      case PickleItem::tuple: {
        PthValue::List list;
        for (const PickleItem& member : heap().lists[item.index]) list.push_back(convert(member));
        return list;
      }
      case PickleItem::dict: return dict(heap().dicts[item.index]);
      case PickleItem::tensor: {
        const detail::PickleTensor& t = heap().tensors[item.index];
        return PthTensor(t.dtype, t.shape, t.strides, t.offset, contents_.storages[t.storage]);
      }
      case PickleItem::storage: return PthValue::Opaque{"storage"};
      case PickleItem::global:
      case PickleItem::opaque: break;
    }
    const detail::PickleGlobal& type = heap().globals[item.index];
    return PthValue::Opaque{type.module.empty() ? std::string(type.name)
                                                : concat(type.module, ".", type.name)};
  }

  // As in Python, a key that is set again keeps its place and gets the new value.
  PthValue dict(const std::vector<std::pair<PickleItem, PickleItem>>& entries) const {
    PthValue::Dict out;
    std::unordered_map<std::string_view, std::size_t> strings;
    std::unordered_map<std::int64_t, std::size_t> integers;
    for (const auto& [key, value] : entries) {
      std::size_t place = out.size();
      if (key.kind == PickleItem::string)
        place = strings.try_emplace(heap().strings[key.index], place).first->second;
      else if (key.kind == PickleItem::integer)
        place = integers.try_emplace(key.integer_value, place).first->second;
      if (place == out.size())
        out.emplace_back(convert(key), convert(value));
      else
        out[place].second = convert(value);
    }
    return out;
  }

  const PthContents& contents_;
  std::string_view what_;
  std::unordered_map<std::size_t, Measure> lists_, dicts_;
};

class PthParameters final : public Parameters {
 public:
  PthParameters(const PthValue::Dict& dict, std::size_t prefix) {
    for (const auto& [key, value] : dict)
      if (value.tensor() != nullptr && key.string() != nullptr) {
        names_.push_back(key.string()->substr(prefix));
        tensors_.push_back(*value.tensor());
      }
    for (std::size_t i = 0; i < names_.size(); ++i) by_name_[names_[i]] = i;
  }
  std::vector<std::string> names() const override { return names_; }
  bool find(std::string_view name, Parameter* into) const override {
    const auto at = by_name_.find(name);
    if (at == by_name_.end()) return false;
    if (into != nullptr) *into = tensors_[at->second].parameter();
    return true;
  }

 private:
  std::vector<std::string> names_;
  std::vector<PthTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
};

bool holds_tensors(const PthValue* value) {
  return value != nullptr && value->dict() != nullptr &&
         std::any_of(value->dict()->begin(), value->dict()->end(), [](const auto& entry) {
           return entry.first.string() != nullptr && entry.second.tensor() != nullptr;
         });
}

// The dictionaries of the root that hold tensors, for a message.
std::string levels(const PthValue& root) {
  std::string all;
  if (root.dict() != nullptr)
    for (const auto& [key, value] : *root.dict())
      if (key.string() != nullptr && holds_tensors(&value))
        all += concat(all.empty() ? "\"" : ", \"", *key.string(), "\"");
  return all.empty() ? "none" : all;
}

const PthValue* level_named(const PthValue& root, std::string_view level) {
  const PthValue* value = &root;
  while (value != nullptr && !level.empty()) {
    const std::size_t slash = std::min(level.find('/'), level.size());
    value = value->find(level.substr(0, slash));
    level.remove_prefix(std::min(slash + 1, level.size()));
  }
  return value;
}

const PthValue* level_by_rule(const PthValue& root) {
  for (std::string_view key : {"params_ema", "params", "state_dict", "model"})
    if (const PthValue* value = root.find(key); holds_tensors(value)) return value;
  if (holds_tensors(&root)) return &root;
  const PthValue* only = nullptr;
  if (root.dict() != nullptr)
    for (const auto& [key, value] : *root.dict())
      if (holds_tensors(&value)) {
        if (only != nullptr) return nullptr;
        only = &value;
      }
  return only;
}

}  // namespace

const PthValue* PthValue::find(std::string_view key) const {
  if (const Dict* d = dict())
    for (const auto& [name, value] : *d)
      if (name.string() != nullptr && *name.string() == key) return &value;
  return nullptr;
}

Parameter PthTensor::parameter() const {
  const auto bytes = static_cast<std::size_t>(bits(dtype_) / 8);
  Index count = 1, packed = 1;
  bool contiguous = true;
  for (std::size_t i = shape_.size(); i-- > 0;) {
    contiguous = contiguous && (shape_[i] == 1 || strides_[i] == packed);
    packed *= std::max<Index>(shape_[i], 1);
    count *= shape_[i];
  }
  if (count == 0) return {nullptr, dtype_, shape_, nullptr};
  const std::shared_ptr<const std::byte> storage = storage_->data(bytes);
  const std::byte* first = storage.get() + offset_ * bytes;
  if (contiguous) return {first, dtype_, shape_, storage};

  const std::shared_ptr<void> copy(detail::allocate(static_cast<std::size_t>(count) * bytes),
                                   detail::release);
  auto* to = static_cast<std::byte*>(copy.get());
  std::vector<Index> at(shape_.size(), 0);
  Index element = 0;  // from the first
  for (Index i = 0; i < count; ++i, to += bytes) {
    std::memcpy(to, first + element * static_cast<Index>(bytes), bytes);
    for (std::size_t axis = shape_.size(); axis-- > 0; at[axis] = 0) {  // the next in row-major order
      if (at[axis] + 1 < shape_[axis]) {
        ++at[axis], element += strides_[axis];
        break;
      }
      element -= at[axis] * strides_[axis];
    }
  }
  return {copy.get(), dtype_, shape_, copy};
}

PthFile::PthFile(MappedFile file) : file_(std::move(file)) {
  const std::string what = concat("pth \"", file_.name(), "\"");
  const auto contents = detail::read_pth(file_, what);
  PthValue root = TreeBuilder(*contents, what).build();
  if (const auto* object = root.opaque())
    throw Error("ForbiddenGlobal", concat(what, ": it is an object of ", object->type,
                                          ", not a dictionary of tensors; save the state_dict() instead"));
  root_ = std::make_shared<const PthValue>(std::move(root));
}

std::shared_ptr<const Parameters> PthFile::parameters(std::string_view level) const {
  const PthValue* value = level.empty() ? level_by_rule(root()) : level_named(root(), level);
  if (!holds_tensors(value)) {
    const std::string wanted = level.empty() ? std::string("no dictionary that is surely the model's")
                                             : concat("no dictionary of tensors at \"", level, "\"");
    throw Error("NotACheckpoint",
                concat("pth \"", file_.name(), "\": ", wanted, "; those at the top are: ", levels(root())));
  }
  constexpr std::string_view kModule = "module.";
  const bool wrapped = std::all_of(value->dict()->begin(), value->dict()->end(), [&](const auto& entry) {
    return entry.second.tensor() == nullptr || entry.first.string() == nullptr ||
           entry.first.string()->starts_with(kModule);
  });
  return std::make_shared<const PthParameters>(*value->dict(), wrapped ? kModule.size() : 0);
}

}  // namespace v0
}  // namespace ashlar
