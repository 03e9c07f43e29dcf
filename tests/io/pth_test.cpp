// SPDX-License-Identifier: Apache-2.0
// Files that torch wrote.
#include "ashlar/io/pth.hpp"

#include <cstring>

#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "ashlar/io/safetensors.hpp"
#include "tests/io/allocations.hpp"
#include "tests/io/pth_files.hpp"

namespace ashlar {
namespace {

using test::element;
using test::kind;
using test::malformed;

using Shape = std::vector<Index>;

std::string golden(std::string_view name) { return concat(ASHLAR_GOLDENS, "/", name); }

template <class T>
std::vector<double> values(const Parameter& p) {
  std::vector<double> all;
  for (Index i = 0; i < p.size(); ++i)
    all.push_back(static_cast<double>(static_cast<float>(element<T>(p, i))));
  return all;
}

using Values = std::vector<double>;

TEST(Pth, GivesTheListedVerdictOnEveryMalformedFile) {
  int seen = 0;
  const Value expect = read_json(malformed("EXPECT.json"));
  for (const Value& entry : *expect.array()) {
    const std::string name = entry.get_string("file", ""), want = entry.get_string("expect", "");
    if (!name.ends_with(".pth")) continue;
    ++seen;
    const std::size_t space = std::min(want.find(' '), want.size());
    const std::string kinds = concat("/", want.substr(0, space), "/");
    std::string got = "OK", sentence;
    std::size_t peak = 0;
    {
      test::AllocationMeter meter;
      try {
        test::checksum(*open_checkpoint(malformed(name)));
      } catch (const Error& e) {
        got = e.kind(), sentence = e.what();
      }
      peak = meter.peak();
    }
    EXPECT_NE(kinds.find(concat("/", got, "/")), kinds.npos) << name << ": " << got << ", expected " << want;
    EXPECT_LT(peak, 64u << 10) << name;
    if (got == "ForbiddenGlobal" || got == "MissingRecord") {
      EXPECT_NE(sentence.find(want.substr(space + 1)), sentence.npos) << sentence;
    }
  }
  EXPECT_GE(seen, 20);
}

TEST(Pth, ReadsATransposeThatSharesItsStorage) {
  const auto p = open_checkpoint(malformed("ok_zip.pth"));
  EXPECT_EQ(p->at("w").shape, (Shape{2, 3}));
  EXPECT_EQ(values<float>(p->at("w")), (Values{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(p->at("wt").shape, (Shape{3, 2}));
  EXPECT_EQ(values<float>(p->at("wt")), (Values{0, 3, 1, 4, 2, 5}));
}

TEST(Pth, ReadsBothContainersOfTorch) {
  for (const char* name : {"ok_torch113.pth", "ok_legacy.pth"}) {
    const auto p = open_checkpoint(malformed(name));
    EXPECT_EQ(p->names().size(), 6u) << name;
    EXPECT_EQ(p->at("weight").shape, (Shape{2, 3})) << name;
    EXPECT_EQ(values<float>(p->at("weight")), (Values{0, 1, 2, 3, 4, 5})) << name;
    EXPECT_EQ(values<float>(p->at("bias")), (Values{7, 8})) << name;
    EXPECT_EQ(values<std::int64_t>(p->at("idx")), (Values{0, 1, 2, 3})) << name;
    EXPECT_EQ(values<f16>(p->at("h")), (Values{1, -2})) << name;
    EXPECT_EQ(values<bf16>(p->at("bf")), (Values{1, -2})) << name;
    const Parameter flag = p->at("flag");
    EXPECT_EQ(flag.dtype, DType::boolean) << name;
    EXPECT_EQ(static_cast<const char*>(flag.data)[0], 1) << name;
    EXPECT_EQ(static_cast<const char*>(flag.data)[1], 0) << name;
  }
}

TEST(Pth, ReadsANestedDictionary) {
  const PthFile file(malformed("ok_nested.pth"));
  EXPECT_EQ(*file.root().find("epoch")->integer(), 3);
  EXPECT_EQ(*file.root().find("lr")->real(), 0.1);
  EXPECT_EQ(file.root().find("nothing"), nullptr);
  EXPECT_NE(file.root().find("model")->dict(), nullptr);
  EXPECT_EQ(values<float>(file.parameters()->at("bias")), (Values{7, 8}));
  EXPECT_EQ(values<float>(file.parameters("model")->at("bias")), (Values{7, 8}));
  EXPECT_EQ(kind([&] { file.parameters("epoch"); }), "NotACheckpoint");
  EXPECT_EQ(kind([&] { file.parameters("model/bias"); }), "NotACheckpoint");
}

TEST(Pth, HoldsWhatItsTwinHolds) {
  for (const char* name :
       {"swinir", "swinir_denoise", "swin2sr", "hat", "drct", "dlgsanet", "pth/lrgt", "pth/resformer"}) {
    const std::string stem = std::string_view(name).starts_with("pth/") ? name + 4 : name;
    const auto got = open_checkpoint(golden(stem + ".pth"));
    const PrefixedParameters want(open_checkpoint(golden(concat(name, ".safetensors"))), "param.");
    EXPECT_GE(want.names().size(), 30u) << name;
    for (const std::string& key : want.names()) {
      ASSERT_TRUE(got->contains(key)) << name << ": " << key;
      const Parameter a = got->at(key), b = want.at(key);
      ASSERT_EQ(a.dtype, b.dtype) << name << ": " << key;
      ASSERT_EQ(a.shape, b.shape) << name << ": " << key;
      EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.size() * bits(a.dtype) / 8)), 0)
          << name << ": " << key;
    }
  }
}

TEST(Pth, FindsTheLevelOfEachAuthor) {
  const auto top = [](std::string_view name) {
    const PthFile file(golden(name));
    return file.root().dict()->front().first.string() != nullptr ? *file.root().dict()->front().first.string()
                                                                 : "";
  };
  EXPECT_EQ(top("hat.pth"), "params_ema");
  EXPECT_EQ(top("rgt.pth"), "params");
  EXPECT_EQ(top("swin2sr.pth"), "conv_first.weight");
  EXPECT_GE(open_checkpoint(golden("rgt.pth"))->names().size(), 100u);

  const PthFile lrgt(golden("lrgt.pth"));  // "encoder_state_dict", wrapped in module.
  EXPECT_EQ(lrgt.root().find("best_iou")->opaque()->type, "numpy.core.multiarray.scalar");
  EXPECT_TRUE(lrgt.parameters()->contains("encoder.cls_token"));
  const PthFile resformer(golden("resformer.pth"));
  EXPECT_EQ(resformer.root().find("args")->opaque()->type, "argparse.Namespace");
  EXPECT_EQ(*resformer.root().find("epoch")->integer(), 3);
  EXPECT_NE(resformer.root().find("lr_scheduler")->find("base_lrs")->list(), nullptr);
}

TEST(Pth, TruncatedAnywhereIsRefusedOrWhole) {
  for (const char* name : {"ok_zip.pth", "ok_torch113.pth", "ok_legacy.pth", "ok_nested.pth"}) {
    const std::string bytes = test::file_bytes(malformed(name));
    for (std::size_t n = 0; n < bytes.size(); ++n)
      EXPECT_NE(test::pth_kind(bytes.substr(0, n)), "OK") << name << " of " << n << " bytes";
  }
}

TEST(Pth, AChangedByteIsRefusedOrRead) {  // nothing shows under a sanitizer
  for (const char* name : {"ok_torch113.pth", "ok_legacy.pth"}) {
    std::string bytes = test::file_bytes(malformed(name));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const char was = bytes[i];
      for (const char now : {'\0', '\x7f', '\xff', static_cast<char>(was ^ 1)}) {
        bytes[i] = now;
        test::pth_kind(bytes);
      }
      bytes[i] = was;
    }
  }
}

TEST(Pth, DirectoriesMayHoldThem) {
  const test::TempDir dir;
  const std::string bytes = test::file_bytes(malformed("ok_torch113.pth"));
  dir.write("pytorch_model-1.bin", bytes);
  dir.write("pytorch_model-2.bin",
            test::pth(test::dict({{"c", test::tensor(test::storage("0", 1), 0, {1}, {1})}}),
                      {{"0", test::raw({4.0f})}}));
  dir.write("pytorch_model.bin.index.json",
            R"({"weight_map": {"bias": "pytorch_model-1.bin", "c": "pytorch_model-2.bin"}})");
  EXPECT_EQ(open_checkpoint(dir.path())->names(), (std::vector<std::string>{"bias", "c"}));
  EXPECT_EQ(element<float>(open_checkpoint(dir.path())->at("c"), 0), 4.0f);
  dir.write("pytorch_model.bin", bytes);
  EXPECT_EQ(open_checkpoint(dir.path())->names().size(), 6u);
  EXPECT_EQ(open_checkpoint(dir.write("blob", bytes))->names().size(), 6u);  // by its first bytes
  EXPECT_EQ(
      open_checkpoint(dir.write("legacy", test::file_bytes(malformed("ok_legacy.pth"))))->names().size(), 6u);
}

}  // namespace
}  // namespace ashlar
