// SPDX-License-Identifier: Apache-2.0
// Pickles and archives that torch does not write.
#include "tests/io/allocations.hpp"
#include "tests/io/pth_files.hpp"

namespace ashlar::test {
namespace {

const Records kSix{{"0", raw({0.f, 1.f, 2.f, 3.f, 4.f, 5.f})}};

std::string one(const std::string& value, const Records& storages = kSix) {
  return pth(dict({{"w", value}}), storages);
}
std::string refusal(const std::string& value, const Records& storages = kSix) {
  return pth_kind(one(value, storages));
}

TEST(PthPickle, ViewsAreStrided) {
  const auto floats = [](const std::string& value) {
    const Parameter p = open_pth(one(value)).parameters()->at("w");
    std::vector<float> all;
    for (Index i = 0; i < p.size(); ++i) all.push_back(element<float>(p, i));
    return all;
  };
  using Floats = std::vector<float>;
  const std::string s = storage("0", 6);
  EXPECT_EQ(floats(tensor(s, 0, {2, 3}, {3, 1})), (Floats{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(floats(tensor(s, 1, {2, 2}, {2, 2})), (Floats{1, 3, 3, 5}));
  EXPECT_EQ(floats(tensor(s, 0, {3, 2}, {1, 3})), (Floats{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(floats(tensor(s, 5, {1, 2, 1}, {1 << 30, 0, 7})), (Floats{5, 5}));
  EXPECT_EQ(floats(tensor(s, 5, {}, {})), (Floats{5}));
  EXPECT_EQ(floats(tensor(s, 9, {0, 3}, {3, 1})), Floats{});
}

TEST(PthPickle, TensorsStayInTheirStorage) {
  const std::string s = storage("0", 6), t = tensor(s, 0, {6}, {1});
  const std::string six = kSix[0].second;
  EXPECT_EQ(refusal(t), "OK");
  EXPECT_EQ(refusal(tensor(s, 1, {6}, {1})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, -1, {2}, {1})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 0, {2}, {6})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 0, {-2}, {1})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 6, {}, {})), "TensorOutOfStorage");
  const std::int64_t huge = std::int64_t{1} << 62;
  EXPECT_EQ(refusal(tensor(s, 0, {5}, {huge})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 0, {huge, huge}, {0, 0})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 0, {0, huge, huge}, {0, 0, 0})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, huge, {2}, {1})), "TensorOutOfStorage");
  EXPECT_EQ(refusal(tensor(s, 0, {2}, {-1})), "InvalidStride");
  EXPECT_EQ(refusal(tensor(s, 0, {2}, {1, 1})), "InvalidStride");
  EXPECT_EQ(refusal(tensor(s, 0, {1 << 30}, {0})), "InvalidStride");  // 4 GiB of 24 bytes
  EXPECT_EQ(refusal(tensor(s, 0, {1 << 10}, {0})), "OK");
  EXPECT_EQ(refusal(tensor(storage("0", 5), 0, {5}, {1})), "StorageSizeMismatch");
  EXPECT_EQ(refusal(tensor(storage("0", 6, "DoubleStorage"), 0, {6}, {1})), "StorageSizeMismatch");
  EXPECT_EQ(refusal(tensor(storage("1", 6), 0, {6}, {1})), "MissingRecord");
  EXPECT_EQ(refusal(tensor(storage("0", -6), 0, {6}, {1})), "BadPersistentId");
  EXPECT_EQ(
      pth_kind(pth(dict({{"a", t}, {"b", tensor(storage("0", 3, "DoubleStorage"), 0, {3}, {1})}}), kSix)),
      "BadPersistentId");
  for (const char* key : {"../0", "a/0", "..", "", "\\0", "/etc/passwd"})
    EXPECT_EQ(refusal(tensor(storage(key, 6), 0, {6}, {1})), "InvalidRecordName") << key;
}

TEST(PthPickle, ReadsParametersSizesAndTypes) {
  const std::string s = storage("0", 6), t = tensor(s, 0, {6}, {1});
  EXPECT_EQ(refusal(call("torch._utils", "_rebuild_parameter", {t, "\x88", "N"})), "OK");
  EXPECT_EQ(refusal(call("torch.nn.parameter", "Parameter", {t, "\x88"})), "OK");
  EXPECT_EQ(refusal(call("torch._utils", "_rebuild_tensor", {s, integer(0), integers({6}), integers({1})})),
            "OK");
  EXPECT_EQ(refusal(call("torch._utils", "_rebuild_tensor_v2",
                         {s, integer(0), call("torch", "Size", {integers({6})}), integers({1}), "\x89",
                          call("collections", "OrderedDict", {})})),
            "OK");
  const std::string untyped = concat(tuple({text("storage"), global("torch.storage", "UntypedStorage"),
                                            text("0"), text("cuda:0"), integer(24)}),
                                     "Q");
  const auto v3 = [&](const char* dtype, std::int64_t n) {
    return call("torch._utils", "_rebuild_tensor_v3",
                {untyped, integer(0), integers({n}), integers({1}), "\x89", "N", global("torch", dtype)});
  };
  EXPECT_EQ(open_pth(one(v3("float8_e4m3fn", 24))).parameters()->at("w").dtype, DType::f8_e4m3);
  EXPECT_EQ(open_pth(one(v3("uint16", 12))).parameters()->at("w").dtype, DType::u16);
  EXPECT_EQ(refusal(v3("uint16", 13)), "TensorOutOfStorage");
  EXPECT_EQ(refusal(v3("Size", 1)), "PickleBadValue");
  const std::string hooks = dict({{"hook", "N"}});
  EXPECT_EQ(refusal(call("torch._utils", "_rebuild_tensor_v2",
                         {s, integer(0), integers({6}), integers({1}), "\x89", hooks})),
            "PickleBadValue");
  EXPECT_EQ(refusal(concat(t, "}b")), "ForbiddenOpcode");  // BUILD
}

TEST(PthPickle, ReadsEveryPlainValue) {
  const std::string t = tensor(storage("0", 6), 0, {6}, {1});
  const PthFile file = open_pth(pth(dict({{"none", "N"},
                                          {"true", "\x88"},
                                          {"minus", concat("J", little(0xfffffffe, 4))},
                                          {"word", concat("M", little(65535, 2))},
                                          {"zero", std::string("\x8a\0", 2)},
                                          {"long", "\x8a\x03\xff\xff\xfe"},
                                          {"beyond", concat("\x8a\x09", little(0, 8), "\1")},
                                          {"half", std::string("G\x3f\xe0\0\0\0\0\0\0", 9)},
                                          {"short", "U\x02hi"},
                                          {"short8", "\x8c\x02hi"},
                                          {"bytes", "C\x02hi"},
                                          {"list", "](K\1K\2e"},
                                          {"tuple", "K\1K\2\x86"},
                                          {"set", "\x8f(K\1\x90"},
                                          {"class", global("my.module", "Model")},
                                          {"enum", call("my.module", "Colour", {integer(1)})},
                                          {"object", concat(global("my.module", "Model"), ")\x81}b")},
                                          {"dict", concat(global("collections", "defaultdict"), ")RK\1K\2s")},
                                          {"w", t},
                                          {"w", t}}),
                                    kSix));
  const auto at = [&](std::string_view key) { return *file.root().find(key); };
  EXPECT_TRUE(at("none").is_none());
  EXPECT_TRUE(*at("true").boolean());
  EXPECT_EQ(*at("minus").integer(), -2);
  EXPECT_EQ(*at("word").integer(), 65535);
  EXPECT_EQ(*at("zero").integer(), 0);
  EXPECT_EQ(*at("long").integer(), -65537);
  EXPECT_EQ(at("beyond").opaque()->type, "int");
  EXPECT_EQ(*at("half").real(), 0.5);
  EXPECT_EQ(*at("short").string(), "hi");
  EXPECT_EQ(*at("short8").string(), "hi");
  EXPECT_EQ(at("bytes").opaque()->type, "bytes");
  EXPECT_EQ(at("list").list()->size(), 2u);
  EXPECT_EQ(*at("tuple").list()->at(1).integer(), 2);
  EXPECT_EQ(at("set").list()->size(), 1u);
  EXPECT_EQ(at("class").opaque()->type, "my.module.Model");
  EXPECT_EQ(at("enum").opaque()->type, "my.module.Colour");
  EXPECT_EQ(at("object").opaque()->type, "my.module.Model");
  EXPECT_EQ(at("dict").opaque()->type, "collections.defaultdict");
  EXPECT_EQ(file.root().dict()->size(), 19u);  // "w" once
}

TEST(PthPickle, ForbidsWhatReachesForTheSystem) {
  for (const auto& [module, name] :
       std::vector<std::pair<const char*, const char*>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"nt", "system"},
                                                        {"subprocess", "Popen"},
                                                        {"builtins", "exec"},
                                                        {"__builtin__", "eval"},
                                                        {"builtins", "getattr"},
                                                        {"importlib", "import_module"},
                                                        {"sys", "exit"},
                                                        {"shutil", "rmtree"},
                                                        {"runpy", "run_path"},
                                                        {"os.path", "join"},
                                                        {"pickle", "loads"},
                                                        {"torch", "load"},
                                                        {"torch.hub", "load"},
                                                        {"torch.jit._script", "load"},
                                                        {"torch._utils", "_rebuild_qtensor"},
                                                        {"torch", "QInt8Storage"},
                                                        {"torch.storage", "_load_from_bytes"},
                                                        {"numpy.testing._private.utils", "runstring"}}) {
    const std::string opcode = global(module, name);
    EXPECT_EQ(refusal(opcode), "ForbiddenGlobal") << module << "." << name;
    EXPECT_EQ(refusal(concat(text(module), text(name), "\x93")), "ForbiddenGlobal") << module << "." << name;
  }
  EXPECT_EQ(pth_kind(pth(concat(global("my.module", "Model"), ")\x81}b"))),
            "ForbiddenGlobal");  // a whole model
  EXPECT_EQ(refusal(global("my module", "x")), "PickleBadValue");
  EXPECT_EQ(refusal(global("", "x")), "PickleBadValue");
}

TEST(PthPickle, ForbidsOtherOpcodes) {
  for (int code = 0; code < 256; ++code) {
    const std::string_view allowed =
        "().02BCGJKMNQRUX]abcehjqrstu}\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8f\x90\x93\x94\x95";
    if (allowed.find(static_cast<char>(code)) != allowed.npos) continue;
    EXPECT_EQ(pth_kind(pth(std::string(1, static_cast<char>(code)))), "ForbiddenOpcode") << code;
  }
  EXPECT_EQ(pth_kind(pth("\x80\x06")), "ForbiddenOpcode");
}

TEST(PthPickle, RefusesAStackThatDoesNotFit) {
  for (const char* value :
       {"0", "2", "a", "N\x85t", "t", "u", "e", "R", "NR", "b", "Q", "\x86", "(0N0", "s", "(NR"})
    EXPECT_EQ(pth_kind(pth(value)), "PickleStackUnderflow") << value;
  EXPECT_EQ(pth_kind(pth("(N)R")), "PickleBadValue");
  EXPECT_EQ(pth_kind(pth("NNa")), "PickleBadValue");
  EXPECT_EQ(pth_kind(pth("NNNs")), "PickleBadValue");
  EXPECT_EQ(pth_kind(pth("}(Nu")), "PickleBadValue");
  EXPECT_EQ(pth_kind(pth("NQ")), "BadPersistentId");
  EXPECT_EQ(pth_kind(pth(")Q")), "BadPersistentId");
  EXPECT_EQ(pth_kind(pth("X\1\0\0\0\xff")), "PickleTruncated");  // the literal ends at its NUL
  EXPECT_EQ(pth_kind(pth(text("\xff"))), "PickleBadValue");
  EXPECT_EQ(pth_kind(pth("Nr\xff\xff\xff\xff")), "PickleBadMemo");
  EXPECT_EQ(pth_kind(pth("N")), "NotACheckpoint");
  EXPECT_EQ(pth_kind(pth("}")), "NotACheckpoint");
}

TEST(PthPickle, DepthAndSizeAreBounded) {
  const auto repeated = [](std::string_view part, int times) {
    std::string s;
    for (int i = 0; i < times; ++i) s += part;
    return s;
  };
  const auto nested = [&](int depth) { return concat(repeated("]", depth), repeated("a", depth - 1)); };
  EXPECT_EQ(pth_kind(pth(nested(128))), "NotACheckpoint");
  EXPECT_EQ(pth_kind(pth(nested(129))), "PickleTooDeep");
  EXPECT_EQ(pth_kind(pth(nested(100'000))), "PickleTooDeep");
  EXPECT_EQ(pth_kind(pth("]q\0h\0a")), "PickleTruncated");  // ends at its NUL
  EXPECT_EQ(pth_kind(pth("]q\1h\1a")), "PickleTooDeep");    // a list inside itself
  EXPECT_EQ(pth_kind(pth("}q\1K\1h\1s")), "PickleTooDeep");
  EXPECT_EQ(pth_kind(pth(repeated("N", (1 << 20) + 1))), "PickleTooDeep");
  EXPECT_EQ(pth_kind(pth(repeated("(", (1 << 20) + 1))), "PickleTooDeep");
  // Each list twice in the next: 2^100 values of 600 bytes.
  const std::string bomb = pth(concat("]", repeated("q\1]h\1ah\1a", 100)));
  AllocationMeter meter;
  EXPECT_EQ(pth_kind(bomb), "PickleTooLarge");
  EXPECT_LT(meter.peak(), 256u << 10);
}

TEST(PthPickle, ALevelIsFoundByRule) {
  const std::string t = tensor(storage("0", 6), 0, {6}, {1});
  const auto names = [&](const std::string& value, std::string_view level = {}) {
    std::string all;
    for (const std::string& name : open_pth(pth(value, kSix)).parameters(level)->names()) all += name + " ";
    return all;
  };
  const auto level = [&](std::string_view name) { return dict({{std::string(name), t}}); };
  EXPECT_EQ(names(dict({{"params", level("a")}, {"params_ema", level("b")}, {"model", level("c")}})), "b ");
  EXPECT_EQ(names(dict({{"params", level("a")}, {"params_ema", level("b")}}), "params"), "a ");
  EXPECT_EQ(names(dict({{"params_ema", "}"}, {"model", level("c")}, {"state_dict", level("d")}})), "d ");
  EXPECT_EQ(names(dict({{"model", level("c")}, {"optimizer", level("d")}})), "c ");
  EXPECT_EQ(names(dict({{"a", t}, {"b", level("c")}, {"n", "K\1"}})), "a ");
  EXPECT_EQ(names(dict({{"net", level("c")}, {"epoch", "K\1"}})), "c ");
  EXPECT_EQ(names(dict({{"gan", dict({{"g", level("x")}, {"d", level("y")}})}}), "gan/d"), "y ");
  EXPECT_EQ(names(dict({{"module.a", t}, {"module.b", t}, {"epoch", "K\1"}})), "a b ");
  EXPECT_EQ(names(dict({{"module.a", t}, {"b", t}})), "module.a b ");
  const std::string two = pth(dict({{"g", level("x")}, {"d", level("y")}}), kSix);
  try {
    open_pth(two).parameters();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "NotACheckpoint");
    EXPECT_NE(std::string_view(e.what()).find("\"g\", \"d\""), std::string_view::npos) << e.what();
  }
}

const Records kPlain{{"archive/data.pkl", pickled("}")}, {"archive/version", "3\n"}};

TEST(PthZip, ReadsWhatZipAllows) {
  const auto opens = [](const std::string& bytes) { return kind([&] { open_pth(bytes); }); };
  EXPECT_EQ(opens(zip(kPlain)), "OK");
  EXPECT_EQ(opens(zip(kPlain, {.zip64 = true})), "OK");
  EXPECT_EQ(opens(zip(kPlain, {.comment = "a comment with PK\5\6 in it"})), "OK");
  EXPECT_EQ(opens(zip(kPlain, {.local_extra = concat("FB", little(60, 2), std::string(60, 'Z'))})), "OK");
  EXPECT_EQ(
      opens(zip({{"my model/", ""}, {"my model/data.pkl", pickled("}")}, {"my model/byteorder", "little"}})),
      "OK");
}

TEST(PthZip, RefusesWhatTorchDoesNotWrite) {
  EXPECT_EQ(pth_kind(zip(kPlain, {.method = 8})), "CompressedRecord");
  EXPECT_EQ(pth_kind(zip(kPlain, {.flags = 1})), "EncryptedRecord");
  EXPECT_EQ(pth_kind(zip(kPlain, {.directory_size_off = 1})), "NotAZip");
  const std::string whole = zip(kPlain);
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_NE(pth_kind(whole.substr(0, n)), "NotACheckpoint") << n;
  for (const std::uint64_t entries :
       {std::uint64_t{1} << 26, std::uint64_t{1} << 61}) {  // in an archive of 100 bytes
    const std::string end = concat(little(44, 8), little(45, 2), little(45, 2), little(0, 8),
                                   little(entries, 8), little(entries, 8), little(0, 8), little(4, 8));
    EXPECT_EQ(pth_kind(concat("PK\3\4PK\6\6", end, "PK\6\7", little(0, 4), little(4, 8), little(1, 4),
                              "PK\5\6", little(0, 4), little(0xffff, 2), little(0xffff, 2),
                              little(0xffffffff, 4), little(0xffffffff, 4), little(0, 2))),
              "NotAZip");
  }
  EXPECT_EQ(pth_kind(zip({})), "NotACheckpoint");
  EXPECT_EQ(pth_kind(zip({{"data.pkl", pickled("}")}})), "NotACheckpoint");
  EXPECT_EQ(pth_kind(zip({{"a/data.pkl", pickled("}")}, {"b/data.pkl", pickled("}")}})), "NotACheckpoint");
  EXPECT_EQ(pth_kind(zip({{"a/data.pkl", pickled("}")}, {"a/constants.pkl", ""}})), "NotACheckpoint");
  EXPECT_EQ(pth_kind(zip({{"a/data.pkl", pickled("}")}, {"a/data.pkl", pickled("}")}})), "InvalidRecordName");
  for (const char* name : {"../x", "/x", "a/../x", "a//x", "a\\x", "a/./x", "c:x", "", "a\nx"})
    EXPECT_EQ(pth_kind(zip({{"a/data.pkl", pickled("}")}, {name, ""}})), "InvalidRecordName") << name;
  EXPECT_EQ(pth_kind(zip({{"a/data.pkl", pickled("}")}, {"a/byteorder", "big"}})), "UnsupportedByteOrder");
  EXPECT_EQ(pth_kind(""), "NotAZip");
  EXPECT_EQ(pth_kind("hello, this is no checkpoint"), "NotAZip");
  EXPECT_EQ(pth_kind(pickled("}")), "NotACheckpoint");
  EXPECT_EQ(pth_kind(std::string(257, '\0') + "ustar"), "NotACheckpoint");
}

TEST(PthLegacy, RefusesWhatDoesNotFit) {
  const std::string magic = "\x80\2\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
  const std::string version = pickled("M\xe9\3"), system = pickled(dict({{"little_endian", "\x88"}}));
  const auto part = [](std::int64_t offset, std::int64_t n) {
    return concat(tuple({text("storage"), global("torch", "FloatStorage"), text("7"), text("cpu"), integer(6),
                         tuple({text("8"), integer(offset), integer(n)})}),
                  "Q");
  };
  const auto stream = [&](const std::string& value, std::string_view keys, std::string_view data) {
    return concat(magic, version, system, pickled(dict({{"w", value}})), pickled(keys), data);
  };
  const std::string keys = concat("](", text("7"), "e"), six = concat(little(6, 8), kSix[0].second);
  const std::string whole = stream(tensor(part(2, 3), 1, {2}, {1}), keys, six);
  EXPECT_EQ(element<float>(open_pth(whole).parameters()->at("w"), 0), 3.0f);  // a part of a part
  EXPECT_EQ(pth_kind(stream(tensor(part(2, 3), 2, {2}, {1}), keys, six)), "TensorOutOfStorage");
  EXPECT_EQ(pth_kind(stream(tensor(part(2, 5), 0, {2}, {1}), keys, six)), "TensorOutOfStorage");
  EXPECT_EQ(pth_kind(stream(tensor(part(0, 6), 0, {2}, {1}), "]", six)), "MissingRecord");
  EXPECT_EQ(pth_kind(stream(tensor(part(0, 6), 0, {2}, {1}), concat("](", text("9"), "e"), six)),
            "BadPersistentId");
  EXPECT_EQ(pth_kind(stream(tensor(part(0, 6), 0, {2}, {1}), keys, six.substr(0, 31))), "RecordOutOfFile");
  EXPECT_EQ(pth_kind(stream(tensor(part(0, 6), 0, {2}, {1}), keys, concat(little(5, 8), kSix[0].second))),
            "StorageSizeMismatch");
  EXPECT_EQ(pth_kind(concat(magic, pickled("M\xe8\3"))), "NotACheckpoint");
  EXPECT_EQ(pth_kind(concat(magic, version, pickled(dict({{"little_endian", "\x89"}})))),
            "UnsupportedByteOrder");
}

}  // namespace
}  // namespace ashlar::test
