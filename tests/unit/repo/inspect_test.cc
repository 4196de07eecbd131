// What inspect counts is what comparing word by word counts.
#include "siltstone/inspect.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "repo/bucket.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::TinyModel;

InspectOptions options(std::string tensors, bool steps = false) {
  InspectOptions out;
  out.tensors = std::move(tensors);
  out.steps = steps;
  return out;
}

class Inspect : public ::testing::Test {
 protected:
  Inspect() : repository_(*Repository::init(store_)) {
    after_.step(3);
    // Two words whose steps are known: 1.0 down by one, across the binade, and -2.0 away by six.
    set(0, 0x3F80, 0x3F7F);
    set(1, 0xC000, 0xC006);
    publish(before_);
    publish(after_);
  }

  void publish(const TinyModel& model) {
    const auto report = repository_->publish(*model.checkpoint(), {});
    ASSERT_TRUE(report) << report.error().message;
    head_ = report->version;
  }

  void set(size_t word, uint16_t from, uint16_t to) {
    store_le(before_.tensors.back().bytes.data() + 2 * word, from);
    store_le(after_.tensors.back().bytes.data() + 2 * word, to);
  }

  uint64_t changed(size_t t) const {
    const size_t word_bytes = dtype_info(after_.tensors[t].dtype).word_bytes;
    const auto& a = before_.tensors[t].bytes;
    const auto& b = after_.tensors[t].bytes;
    uint64_t count = 0;
    for (size_t at = 0; at < a.size(); at += word_bytes)
      count += std::memcmp(a.data() + at, b.data() + at, word_bytes) != 0 ? 1 : 0;
    return count;
  }

  Result<Inspection> look(InspectOptions options = {}) {
    return inspect(*repository_, head_, options);
  }

  std::shared_ptr<MemoryStore> store_ = std::make_shared<MemoryStore>("mem://inspect");
  std::unique_ptr<Repository> repository_;
  TinyModel before_;
  TinyModel after_;
  Version head_;
};

TEST_F(Inspect, CountsWhatTheSectionsHold) {
  const auto report = look();
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_EQ(report->tensors.size(), after_.tensors.size());
  uint64_t elements = 0;
  uint64_t all_changed = 0;
  uint64_t bytes = 0;
  for (size_t t = 0; t < after_.tensors.size(); ++t) {
    const TensorInspection& tensor = report->tensors[t];
    EXPECT_EQ(tensor.name, after_.tensors[t].name);
    EXPECT_EQ(tensor.dtype, after_.tensors[t].dtype);
    EXPECT_EQ(tensor.changed, changed(t));
    elements += tensor.elements;
    all_changed += tensor.changed;
    bytes += tensor.section_bytes;
    uint64_t by_codec = 0;
    for (const CodecUse& use : tensor.codecs) by_codec += use.section_bytes;
    EXPECT_EQ(by_codec, tensor.section_bytes);
  }
  EXPECT_EQ(report->elements, elements);
  EXPECT_EQ(report->changed, all_changed);
  EXPECT_EQ(report->section_bytes, bytes);
  EXPECT_EQ(report->packs, 1U);
  // Entries are padded to 16 bytes at most.
  EXPECT_GE(report->bytes, report->header_bytes + bytes);
  EXPECT_LE(report->bytes, report->header_bytes + bytes + 16 * after_.tensors.size());
  EXPECT_TRUE(report->steps.empty());
}

TEST_F(Inspect, CountsStepsByTheOldWord) {
  const auto report = look(options("weight", true));
  ASSERT_TRUE(report) << report.error().message;
  uint64_t elements = 0;
  uint64_t all_changed = 0;
  std::map<int, BinadeSteps> by_power;
  unsigned last = 256;
  for (const BinadeSteps& binade : report->steps) {
    EXPECT_EQ(binade.dtype, DType::kBF16);
    EXPECT_LT(binade.exponent, last);
    last = binade.exponent;
    uint64_t by_size = 0;
    for (const uint64_t count : binade.by_size) by_size += count;
    EXPECT_EQ(by_size, binade.changed);
    elements += binade.elements;
    all_changed += binade.changed;
    by_power[binade.power] = binade;
  }
  EXPECT_EQ(elements, 64U * 48);
  EXPECT_EQ(all_changed, changed(3));
  EXPECT_GE(by_power.at(0).by_size[0], 1U);  // 1.0 by one step
  EXPECT_GE(by_power.at(1).by_size[3], 1U);  // -2.0 by six
}

TEST_F(Inspect, ReadsAPackAlone) {
  const auto whole = look();
  ASSERT_TRUE(whole);
  const auto objects = store_->list("");
  ASSERT_TRUE(objects);
  std::string key;
  for (const ObjectInfo& object : *objects)
    if (object.name.ends_with("/0-0.safetensors")) key = object.name;
  ASSERT_FALSE(key.empty());
  std::vector<std::byte> bytes(*store_->size_bytes(key));
  ASSERT_TRUE(store_->read(key, 0, bytes));
  const test::ScratchFolder folder;
  const auto path = folder.path() / "pack.safetensors";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const auto pack = inspect_pack(path, {});
  ASSERT_TRUE(pack) << pack.error().message;
  EXPECT_EQ(pack->bytes, whole->bytes);
  EXPECT_EQ(pack->header_bytes, whole->header_bytes);
  EXPECT_EQ(pack->section_bytes, whole->section_bytes);
  EXPECT_EQ(pack->changed, whole->changed);
  ASSERT_EQ(pack->tensors.size(), whole->tensors.size());
  EXPECT_EQ(inspect_pack(path, options("nonesuch")).error().code, Code::kInvalidArgument);
  EXPECT_EQ(inspect_pack(path, options("", true)).error().code, Code::kInvalidArgument);
  for (size_t length = 0; length < bytes.size(); length += 7) {
    std::filesystem::resize_file(path, bytes.size() - 1 - length);
    const auto cut = inspect_pack(path, {});
    ASSERT_FALSE(cut) << length;
    EXPECT_EQ(cut.error().code, Code::kCorrupt);
  }
}

TEST_F(Inspect, RefusesVersionsWithoutDelta) {
  const auto first = repository_->resolve("main@0");
  ASSERT_TRUE(first);
  EXPECT_EQ(inspect(*repository_, *first, {}).error().code, Code::kInvalidArgument);
  const auto fence = repository_->fence("main");
  ASSERT_TRUE(fence);
  EXPECT_EQ(inspect(*repository_, *fence, {}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(look(options("nonesuch")).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace siltstone
