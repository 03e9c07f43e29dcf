// SPDX-License-Identifier: Apache-2.0
// What the names in a torch pickle mean: storages, tensors, dictionaries; which are opaque, which forbidden.
#include <algorithm>

#include "src/io/json_sax.hpp"
#include "src/io/pickle.hpp"
#include "src/io/utf8.hpp"
#include "src/io/zip_archive.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

struct KnownGlobal {
  std::string_view module, name;
  PickleName meaning;
  DType dtype = DType::u8;
};

constexpr KnownGlobal kKnown[] = {{"collections", "OrderedDict", PickleName::ordered_dict},
                                  {"torch._utils", "_rebuild_tensor", PickleName::rebuild_tensor},
                                  {"torch._utils", "_rebuild_tensor_v2", PickleName::rebuild_tensor_v2},
                                  {"torch._utils", "_rebuild_tensor_v3", PickleName::rebuild_tensor_v3},
                                  {"torch._utils", "_rebuild_parameter", PickleName::parameter},
                                  {"torch._utils", "_rebuild_parameter_with_state", PickleName::parameter},
                                  {"torch.nn.parameter", "Parameter", PickleName::parameter},
                                  {"torch", "Size", PickleName::size},
                                  {"torch", "DoubleStorage", PickleName::storage, DType::f64},
                                  {"torch", "FloatStorage", PickleName::storage, DType::f32},
                                  {"torch", "HalfStorage", PickleName::storage, DType::f16},
                                  {"torch", "BFloat16Storage", PickleName::storage, DType::bf16},
                                  {"torch", "LongStorage", PickleName::storage, DType::i64},
                                  {"torch", "IntStorage", PickleName::storage, DType::i32},
                                  {"torch", "ShortStorage", PickleName::storage, DType::i16},
                                  {"torch", "CharStorage", PickleName::storage, DType::i8},
                                  {"torch", "ByteStorage", PickleName::storage, DType::u8},
                                  {"torch", "BoolStorage", PickleName::storage, DType::boolean},
                                  {"torch", "ComplexFloatStorage", PickleName::storage, DType::c64},
                                  {"torch.storage", "UntypedStorage", PickleName::untyped_storage},
                                  {"torch", "UntypedStorage", PickleName::untyped_storage},
                                  {"torch", "float64", PickleName::dtype, DType::f64},
                                  {"torch", "float32", PickleName::dtype, DType::f32},
                                  {"torch", "float16", PickleName::dtype, DType::f16},
                                  {"torch", "bfloat16", PickleName::dtype, DType::bf16},
                                  {"torch", "float8_e4m3fn", PickleName::dtype, DType::f8_e4m3},
                                  {"torch", "float8_e5m2", PickleName::dtype, DType::f8_e5m2},
                                  {"torch", "float8_e4m3fnuz", PickleName::dtype, DType::f8_e4m3fnuz},
                                  {"torch", "float8_e5m2fnuz", PickleName::dtype, DType::f8_e5m2fnuz},
                                  {"torch", "float8_e8m0fnu", PickleName::dtype, DType::f8_e8m0},
                                  {"torch", "complex64", PickleName::dtype, DType::c64},
                                  {"torch", "int64", PickleName::dtype, DType::i64},
                                  {"torch", "int32", PickleName::dtype, DType::i32},
                                  {"torch", "int16", PickleName::dtype, DType::i16},
                                  {"torch", "int8", PickleName::dtype, DType::i8},
                                  {"torch", "uint64", PickleName::dtype, DType::u64},
                                  {"torch", "uint32", PickleName::dtype, DType::u32},
                                  {"torch", "uint16", PickleName::dtype, DType::u16},
                                  {"torch", "uint8", PickleName::dtype, DType::u8},
                                  {"torch", "bool", PickleName::dtype, DType::boolean}};

// Names in torch itself that describe a tensor or a device, and may stand among a run's settings.
constexpr std::string_view kOpaqueOfTorch[] = {
    "device",        "Generator",       "memory_format", "layout", "strided", "contiguous_format",
    "channels_last", "preserve_format", "complex128",    "qint8",  "quint8",  "dtype"};

// Parts of torch whose values would be tensors of a kind that is not read, or would run something.
constexpr std::string_view kForbiddenOfTorch[] = {"torch._utils",  "torch._tensor", "torch.storage",
                                                  "torch.jit",     "torch.hub",     "torch.serialization",
                                                  "torch.package", "torch.utils",   "torch.multiprocessing",
                                                  "torch.sparse",  "torch.masked",  "torch.nested"};

// Plain data among Python's built-in names.
constexpr std::string_view kPlainBuiltins[] = {
    "bool",   "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int",    "list",
    "object", "range",     "set",   "slice",   "str",  "tuple", "long",      "unicode"};

// Python's modules that reach for the system, run code, or load more of it. Nothing here would run them: a
// file that names one is not a checkpoint that anybody should use elsewhere either.
constexpr std::string_view kForbiddenModules[] = {"_ctypes",     "_frozen_importlib",
                                                  "_io",         "_operator",
                                                  "_pickle",     "_posixsubprocess",
                                                  "_socket",     "_thread",
                                                  "_winapi",     "aifc",
                                                  "antigravity", "asyncio",
                                                  "atexit",      "bdb",
                                                  "cloudpickle", "code",
                                                  "codecs",      "codeop",
                                                  "commands",    "concurrent",
                                                  "cPickle",     "cProfile",
                                                  "ctypes",      "dill",
                                                  "distutils",   "doctest",
                                                  "ensurepip",   "fcntl",
                                                  "fileinput",   "ftplib",
                                                  "gc",          "getpass",
                                                  "http",        "httplib",
                                                  "idlelib",     "imaplib",
                                                  "imp",         "importlib",
                                                  "inspect",     "io",
                                                  "lib2to3",     "linecache",
                                                  "marshal",     "mmap",
                                                  "msvcrt",      "multiprocessing",
                                                  "nntplib",     "nt",
                                                  "ntpath",      "operator",
                                                  "os",          "pdb",
                                                  "pickle",      "pip",
                                                  "pkgutil",     "popen2",
                                                  "poplib",      "posix",
                                                  "posixpath",   "pty",
                                                  "py_compile",  "pydoc",
                                                  "rlcompleter", "runpy",
                                                  "selectors",   "setuptools",
                                                  "shlex",       "shutil",
                                                  "signal",      "smtplib",
                                                  "socket",      "socketserver",
                                                  "sqlite3",     "ssl",
                                                  "subprocess",  "sys",
                                                  "tarfile",     "telnetlib",
                                                  "tempfile",    "threading",
                                                  "timeit",      "urllib",
                                                  "urllib2",     "webbrowser",
                                                  "winreg",      "xmlrpc",
                                                  "zipapp",      "zipfile",
                                                  "zipimport"};

template <std::size_t N>
bool contains(const std::string_view (&all)[N], std::string_view name) {
  return std::find(std::begin(all), std::end(all), name) != std::end(all);
}

bool within(std::string_view module, std::string_view parent) {
  return module == parent || (module.starts_with(parent) && module[parent.size()] == '.');
}

bool forbidden(std::string_view module, std::string_view name) {
  const std::string_view package = module.substr(0, module.find('.'));
  if (module == "builtins" || module == "__builtin__") return !contains(kPlainBuiltins, name);
  if (module == "torch") return !contains(kOpaqueOfTorch, name);
  if (package == "torch")
    return std::any_of(std::begin(kForbiddenOfTorch), std::end(kForbiddenOfTorch),
                       [&](std::string_view parent) { return within(module, parent); });
  return contains(kForbiddenModules, package) || module.find("_private") != module.npos ||
         module == "numpy.f2py";
}

std::string_view plain_name(std::string_view name) {
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return c == '_' || c == '.' || c == '<' || c == '>' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
  });
  return plain && find_invalid_utf8(name) == name.size() ? name : std::string_view{};
}

}  // namespace

PickleGlobal pickle_global(std::string_view module, std::string_view name, std::string_view what) {
  if (plain_name(module).empty() || plain_name(name).empty())
    throw Error("PickleBadValue", concat(what, ": its pickle has a global whose name is not one in Python"));
  for (const KnownGlobal& known : kKnown)
    if (known.name == name && known.module == module) return {known.meaning, known.dtype, module, name};
  if (forbidden(module, name))
    throw Error("ForbiddenGlobal",
                concat(what, ": its pickle asks for ", shortened(module), ".", shortened(name),
                       ", which is not part of a checkpoint of plain tensors"));
  return {PickleName::opaque, DType::u8, module, name};
}

std::int64_t Unpickler::integer(const PickleItem& item, std::string_view meaning) const {
  if (item.kind != PickleItem::integer)
    fail("PickleBadValue", meaning, " in its pickle, before byte ", at_, ", is not an integer");
  return item.integer_value;
}

std::vector<Index> Unpickler::integers(const PickleItem& item, std::string_view meaning) const {
  if (item.kind != PickleItem::tuple && item.kind != PickleItem::list)
    fail("PickleBadValue", meaning, " in its pickle, before byte ", at_, ", is not a tuple of integers");
  std::vector<Index> all;
  for (const PickleItem& member : heap_.lists[item.index]) all.push_back(integer(member, meaning));
  return all;
}

// ("storage", type, key, device, numel), and before torch 1.6 a sixth: None, or (key, offset, numel) of a
// part.
void Unpickler::persistent_storage() {
  const PickleItem id = pop();
  const auto bad = [&](const auto&... reason) {
    fail("BadPersistentId", "a persistent id in its pickle, before byte ", at_, ", ", reason...);
  };
  if (id.kind != PickleItem::tuple) bad("is not a tuple");
  const std::vector<PickleItem>& parts = heap_.lists[id.index];
  if (parts.size() != 5 && parts.size() != 6) bad("has ", parts.size(), " members, expected 5 or 6");
  for (const std::size_t text : {0, 2, 3})
    if (parts[text].kind != PickleItem::string && !(text == 3 && parts[text].kind == PickleItem::none))
      bad("has a member ", text, " that is not a string");
  if (heap_.strings[parts[0].index] != "storage") bad("is not that of a storage");
  if (parts[1].kind != PickleItem::global) bad("names no type of storage");
  const PickleGlobal& type = heap_.globals[parts[1].index];
  if (type.meaning != PickleName::storage && type.meaning != PickleName::untyped_storage)
    bad("has the type ", type.module, ".", type.name, ", which is not one of a storage");
  PickleStorage storage;
  storage.key = heap_.strings[parts[2].index];
  if (!plain_record_name(storage.key) || storage.key.find('/') != storage.key.npos)
    fail("InvalidRecordName", "a storage's key in its pickle, before byte ", at_, ", is not a plain name");
  if (parts[4].kind != PickleItem::integer || parts[4].integer_value < 0)
    bad("has no valid number of elements");
  storage.dtype = type.dtype;
  storage.untyped = type.meaning == PickleName::untyped_storage;
  storage.numel = static_cast<std::uint64_t>(parts[4].integer_value);
  PickleStorageView view{storage_of(storage), 0, storage.numel};

  if (parts.size() == 6 && parts[5].kind != PickleItem::none) {
    if (parts[5].kind != PickleItem::tuple || heap_.lists[parts[5].index].size() != 3)
      bad("describes a part of a storage, but not by three members");
    const std::vector<PickleItem>& part = heap_.lists[parts[5].index];
    const std::int64_t offset = integer(part[1], "a storage's offset"),
                       numel = integer(part[2], "a storage's size");
    if (offset < 0 || numel < 0 || static_cast<std::uint64_t>(offset) > storage.numel ||
        static_cast<std::uint64_t>(numel) > storage.numel - static_cast<std::uint64_t>(offset))
      fail("TensorOutOfStorage", "elements ", offset, " to ", offset, " + ", numel, " of the storage \"",
           shortened(storage.key), "\", which has ", storage.numel);
    view.offset = static_cast<std::uint64_t>(offset), view.numel = static_cast<std::uint64_t>(numel);
  }
  push(PickleItem::at(PickleItem::storage, add(heap_.storage_views, view)));
}

std::uint64_t Unpickler::storage_of(const PickleStorage& storage) {
  const auto [at, fresh] = storage_by_key_.emplace(storage.key, heap_.storages.size());
  if (fresh) {
    PickleStorage added = storage;
    if (__builtin_mul_overflow(added.numel, static_cast<std::uint64_t>(bits(added.dtype)) / 8, &added.bytes))
      fail("StorageSizeMismatch", "the storage \"", shortened(added.key), "\" of ", added.numel,
           " elements is larger than any file");
    add(heap_.storages, added);
  } else if (const PickleStorage& known = heap_.storages[at->second]; known.numel != storage.numel ||
                                                                      known.dtype != storage.dtype ||
                                                                      known.untyped != storage.untyped) {
    fail("BadPersistentId", "the storage \"", shortened(storage.key), "\" has two types or two sizes");
  }
  return at->second;
}

PickleItem Unpickler::call(const PickleGlobal& global, const std::vector<PickleItem>& arguments) {
  switch (global.meaning) {
    case PickleName::ordered_dict: return ordered_dict(arguments);
    case PickleName::parameter:
      if (arguments.empty() || arguments[0].kind != PickleItem::tensor)
        fail("PickleBadValue", "a parameter in its pickle, before byte ", at_, ", is not a tensor");
      return arguments[0];
    case PickleName::size:
      if (arguments.size() != 1 || arguments[0].kind != PickleItem::tuple)
        fail("PickleBadValue", "a torch.Size in its pickle, before byte ", at_, ", is not a tuple");
      return arguments[0];
    case PickleName::rebuild_tensor:
    case PickleName::rebuild_tensor_v2:
    case PickleName::rebuild_tensor_v3: return rebuild_tensor(global, arguments);
    default: break;
  }
  fail("PickleBadValue", "its pickle calls ", global.module, ".", global.name, ", which makes no value");
}

// OrderedDict(), or OrderedDict([[key, value], ...]), which Python 2 wrote.
PickleItem Unpickler::ordered_dict(const std::vector<PickleItem>& arguments) {
  std::vector<std::pair<PickleItem, PickleItem>> entries;
  if (arguments.size() > 1 || (arguments.size() == 1 && arguments[0].kind != PickleItem::list))
    fail("PickleBadValue", "an OrderedDict in its pickle, before byte ", at_,
         ", is not made of a list of pairs");
  if (arguments.size() == 1)
    for (const PickleItem& pair : heap_.lists[arguments[0].index]) {
      const bool ok = pair.kind == PickleItem::list || pair.kind == PickleItem::tuple;
      if (!ok || heap_.lists[pair.index].size() != 2)
        fail("PickleBadValue", "an OrderedDict in its pickle, before byte ", at_,
             ", is made of other than pairs");
      entries.emplace_back(heap_.lists[pair.index][0], heap_.lists[pair.index][1]);
    }
  return PickleItem::at(PickleItem::dict, add(heap_.dicts, std::move(entries)));
}

PickleItem Unpickler::rebuild_tensor(const PickleGlobal& global, const std::vector<PickleItem>& arguments) {
  const std::size_t least = global.meaning == PickleName::rebuild_tensor      ? 4
                            : global.meaning == PickleName::rebuild_tensor_v2 ? 6
                                                                              : 7;
  if (arguments.size() < least || arguments.size() > (least == 4 ? 4 : least + 1) ||
      arguments[0].kind != PickleItem::storage)
    fail("PickleBadValue", "a tensor in its pickle, before byte ", at_, ", is not made of a storage and ",
         least - 1, " more");
  if (least > 4 && arguments[5].kind != PickleItem::none &&
      !(arguments[5].kind == PickleItem::dict && heap_.dicts[arguments[5].index].empty()))
    fail("PickleBadValue", "a tensor in its pickle, before byte ", at_, ", has hooks");
  PickleStorageView view = heap_.storage_views[arguments[0].index];
  const PickleStorage& storage = heap_.storages[view.storage];
  PickleTensor t;
  t.storage = view.storage;
  t.dtype = storage.dtype;
  if (global.meaning == PickleName::rebuild_tensor_v3) {
    const bool typed = arguments[6].kind == PickleItem::global &&
                       heap_.globals[arguments[6].index].meaning == PickleName::dtype;
    if (!typed) fail("PickleBadValue", "a tensor in its pickle, before byte ", at_, ", has no dtype");
    t.dtype = heap_.globals[arguments[6].index].dtype;
    if (!storage.untyped && t.dtype != storage.dtype)
      fail("PickleBadValue", "a tensor in its pickle, before byte ", at_,
           ", has another type than its storage");
    const auto element = static_cast<std::uint64_t>(bits(t.dtype)) / 8;
    view.numel /= element;
    if (view.offset != 0)
      fail("PickleBadValue", "a tensor in its pickle lies in a part of an untyped storage");
  }
  const std::int64_t offset = integer(arguments[1], "a tensor's offset");
  if (offset < 0) fail("TensorOutOfStorage", "a tensor has the offset ", offset);
  t.offset = static_cast<std::uint64_t>(offset);
  t.shape = integers(arguments[2], "a tensor's size");
  t.strides = integers(arguments[3], "a tensor's stride");
  check_tensor(t, view);
  t.offset += view.offset;
  return PickleItem::at(PickleItem::tensor, add(heap_.tensors, std::move(t)));
}

void Unpickler::check_tensor(const PickleTensor& t, const PickleStorageView& view) const {
  const std::string_view key = shortened(heap_.storages[t.storage].key);
  if (t.shape.size() != t.strides.size() || t.shape.size() > 64)
    fail("InvalidStride", "a tensor in the storage \"", key, "\" has ", t.shape.size(), " extents and ",
         t.strides.size(), " strides");
  std::uint64_t last = t.offset;
  Index elements = 1, total = bits(t.dtype) / 8;
  bool overflow = false;
  for (std::size_t i = 0; i < t.shape.size(); ++i) {
    if (t.strides[i] < 0)
      fail("InvalidStride", "a tensor in the storage \"", key, "\" has the stride ", t.strides[i]);
    if (t.shape[i] < 0)
      fail("TensorOutOfStorage", "a tensor in the storage \"", key, "\" has the extent ", t.shape[i]);
    elements = t.shape[i] == 0 ? 0 : elements;
    overflow |= t.shape[i] != 0 && __builtin_mul_overflow(total, t.shape[i], &total);
    std::uint64_t step = 0;
    if (t.shape[i] == 0) continue;
    overflow |= __builtin_mul_overflow(static_cast<std::uint64_t>(t.shape[i] - 1),
                                       static_cast<std::uint64_t>(t.strides[i]), &step);
    overflow |= __builtin_add_overflow(last, step, &last);
  }
  if (elements == 0 && !overflow) return;
  if (overflow || last >= view.numel)
    fail("TensorOutOfStorage", "a tensor of the storage \"", key, "\", which has ", view.numel,
         " elements, reaches beyond it");
  const auto bytes = static_cast<std::uint64_t>(total), storage = heap_.storages[t.storage].bytes;
  if (bytes > (64u << 20) && bytes / 16 > storage)
    fail("InvalidStride", "a tensor of the storage \"", key, "\" repeats its ", storage, " bytes to ", bytes);
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
