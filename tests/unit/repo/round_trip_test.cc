// Random pairs of states of every dtype, published and rebuilt by every way there is: all give the
// trainer's bytes back, whatever the bits mean as numbers.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "repo/bucket.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "support/test_store.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;
using test::TinyModel;

// Bit patterns that arithmetic would lose: NaN payloads, both zeros, infinities, largest values.
constexpr uint64_t kPatterns[] = {0,
                                  0x8000000080008000,
                                  0x7FC17FC17FC1007F,
                                  0xFFFFFFFFFFFFFFFF,
                                  0x7F8000007F807F80,
                                  0xFF800001FF81FF81,
                                  0x7FFFFFFF7FFF7F7F};

class RoundTrip : public ::testing::TestWithParam<DTypeInfo> {
 protected:
  std::vector<int64_t> random_shape() {
    switch (random_() % 6) {
      case 0:
        return {};
      case 1:
        return {0};
      case 2:
        return {int64_t(random_() % 300), 0, 2};
      case 3:
        return {int64_t(random_() % 5000)};
      case 4:
        return {int64_t(random_() % 60), int64_t(random_() % 60)};
      default:
        return {3, int64_t(random_() % 9), int64_t(random_() % 70)};
    }
  }

  TinyModel random_model() {
    TinyModel model;
    model.tensors.clear();
    for (int i = 0; i < 3; ++i) {
      std::vector<int64_t> shape = random_shape();
      std::optional<uint64_t> size = tensor_size_bytes(GetParam().dtype, shape);
      if (!size) {
        shape = {8, int64_t(random_() % 40)};  // sub-byte dtypes need whole bytes
        size = tensor_size_bytes(GetParam().dtype, shape);
      }
      std::vector<std::byte> bytes(*size);
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
      model.tensors.push_back({"t" + std::to_string(i), GetParam().dtype, shape, std::move(bytes)});
    }
    return model;
  }

  // Overwrites a random share of the words, from none to all, by patterns and by random bits.
  void change(TinyModel* model) {
    const uint64_t one_in = uint64_t{1} << random_() % 10;
    const bool nothing = random_() % 12 == 0;
    for (TinyModel::Tensor& tensor : model->tensors) {
      const size_t word = GetParam().word_bytes;
      for (size_t at = 0; !nothing && at + word <= tensor.bytes.size(); at += word) {
        if (random_() % one_in != 0) continue;
        uint64_t bits = random_();
        if (random_() % 2 == 0) bits = kPatterns[random_() % std::size(kPatterns)];
        std::memcpy(tensor.bytes.data() + at, &bits, word);
      }
    }
  }

  std::mt19937_64 random_{20240131};
};

TEST_P(RoundTrip, EveryWayGivesTheBytesBack) {
  constexpr int kChains = 12;
  constexpr int kLinks = 5;
  for (int chain = 0; chain < kChains && !HasFailure(); ++chain) {
    SCOPED_TRACE("chain " + std::to_string(chain));
    const ScratchFolder scratch;
    const auto store = test_store();
    const auto repository = *Repository::init(store);
    RetainedBase base;
    PublishOptions options;
    options.threads = 1;
    if (chain % 2 == 0) options.retained = &base;
    options.pack_anchors = chain % 3 == 0;
    TinyModel model = random_model();
    TinyModel live = model;
    std::unique_ptr<Replica> memory;
    auto folder = *Replica::open(scratch.path() / "replica", *repository);
    for (int link = 0; link <= kLinks; ++link) {
      const Result<PublishReport> report = repository->publish(*model.checkpoint(), options);
      ASSERT_TRUE(report) << report.error().message;
      if (link == 0) memory = *Replica::adopt(live.views(), report->version);
      if (link == 0 || random_() % 2 == 0 || link == kLinks) {
        for (Replica* replica : {memory.get(), folder.get()}) {
          auto staged = replica->stage(*repository, report->version, {});
          ASSERT_TRUE(staged) << staged.error().message;
          ASSERT_TRUE(replica->commit(*std::move(staged)).status);
        }
        EXPECT_TRUE(live == model);
        EXPECT_TRUE(model.is_in(scratch.path() / "replica"));
      }
      const fs::path out = scratch.path() / ("out" + std::to_string(link));
      ASSERT_TRUE(repository->checkout(report->version, out, {}));
      EXPECT_TRUE(model.is_in(out));
      TinyModel loaded = model;
      for (TinyModel::Tensor& tensor : loaded.tensors)
        std::ranges::fill(tensor.bytes, std::byte{7});
      const Result<LoadReport> load = repository->load(report->version, loaded.views(), {});
      ASSERT_TRUE(load) << load.error().message;
      EXPECT_TRUE(loaded == model);
      change(&model);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RoundTrip,
                         ::testing::ValuesIn(all_dtypes().begin(), all_dtypes().end()),
                         [](const auto& of) { return std::string(of.param.name); });

// A trainer's folder on disk through the base cache: headers, shards and companions included.
TEST(RoundTripFolder, GivesFilesBackByteForByte) {
  const ScratchFolder scratch;
  const auto repository = *Repository::init(test_store());
  PublishOptions options;
  options.cache = scratch.path() / "cache";
  std::mt19937_64 random(5);
  std::string data(4000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  for (int step = 0; step < 6; ++step) {
    const fs::path folder = scratch.path() / ("step" + std::to_string(step));
    fs::create_directories(folder / "1_Pooling");
    // Spaces inside and behind, keys out of order: all of it must come back.
    const std::string header =
        R"({ "b":{"shape":[1500],"dtype":"BF16","data_offsets":[1000,4000]},)"
        R"( "a" : {"dtype":"F32","shape":[250],"data_offsets":[0,1000]}})" +
        std::string(static_cast<size_t>(step), ' ');
    std::string file(8, '\0');
    store_le<uint64_t>(file.data(), header.size());
    file += header + data;
    const std::string config = "{\"step\": " + std::to_string(step / 2) + "}\n";
    ASSERT_TRUE(replace_file(folder / "model.safetensors", as_bytes(file)));
    ASSERT_TRUE(replace_file(folder / "config.json", as_bytes(config)));
    ASSERT_TRUE(
        replace_file(folder / "1_Pooling" / "config.json", as_bytes(std::string_view("{}"))));
    const auto report = repository->publish(**open_checkpoint(folder), options);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->kind, step == 0 ? ArtifactKind::kAnchor : ArtifactKind::kDelta);
    const fs::path out = scratch.path() / "out";
    CheckoutOptions replace;
    replace.replace = true;
    ASSERT_TRUE(repository->checkout(report->version, out, replace));
    EXPECT_EQ(*read_file(out / "model.safetensors", 1 << 20), file);
    EXPECT_EQ(*read_file(out / "config.json", 1 << 20), config);
    EXPECT_EQ(*read_file(out / "1_Pooling" / "config.json", 1 << 20), "{}");
    for (int i = 0; i < 30; ++i) data[random() % data.size()] ^= 1;
  }
}

// What lies in memory may have companions too.
TEST(RoundTripFolder, GivesCompanionsOfMemoryBack) {
  const ScratchFolder scratch;
  const auto repository = *Repository::init(test_store());
  const TinyModel model;
  const std::map<std::string, std::string> companions = {{"config.json", "{\"a\": 1}"},
                                                         {"sub/empty.txt", ""}};
  const auto report = repository->publish(*model.checkpoint(companions), {});
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_TRUE(repository->checkout(report->version, scratch.path() / "out", {}));
  EXPECT_TRUE(model.is_in(scratch.path() / "out"));
  for (const auto& [path, content] : companions)
    EXPECT_EQ(*read_file(scratch.path() / "out" / path, 1 << 20), content);
}

TEST(RoundTripFolder, RefusesCompanionsThatNoFolderCanHold) {
  const auto repository = *Repository::init(test_store());
  const TinyModel model;
  for (const auto& [first, second] :
       {std::pair("../out", "a"), std::pair("/etc/x", "a"), std::pair("a", "a/b"),
        std::pair("model.safetensors", "a"), std::pair(".siltstone/x", "a")}) {
    const auto report = repository->publish(*model.checkpoint({{first, ""}, {second, ""}}), {});
    ASSERT_FALSE(report) << first;
    EXPECT_EQ(report.error().code, Code::kInvalidArgument) << report.error().message;
  }
  EXPECT_EQ(repository->head("main").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace siltstone
