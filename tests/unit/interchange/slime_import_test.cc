// slime's folders: full versions, both encodings and every digest are read; everything else is
// refused before anything is published.
#include <sys/stat.h>

#include "base/checksum.h"
#include "interchange/slime.h"
#include "support/allocation_watch.h"
#include "support/foreign_folder.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::ForeignTensor;
using test::Header;
using test::list_of;
using Bytes = std::vector<std::byte>;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kFile = "model-00000-of-00001.safetensors";

class SlimeImport : public test::InterchangeTest {
 protected:
  SlimeImport() : state_(400) {
    for (size_t i = 0; i < state_.size(); ++i) state_[i] = static_cast<std::byte>(i % 7);
  }

  fs::path version(int number) const {
    return folder() / ("weight_v00000" + std::to_string(number));
  }

  static void write_model(const fs::path& model, const Bytes& w) {
    test::write_weights(model / "model.safetensors",
                        {{"b", DType::kF32, {2}, Bytes(8)}, {"w", DType::kBF16, {20, 10}, w}},
                        {{"format", "pt"}});
    test::write_text(model / "config.json", "{\"a\":1}");
  }

  struct Delta {
    std::string version = "000002";
    std::string base = "000001";
    std::string encoding = "xor";
    std::string compression = "zstd";
    std::string digests = "xxh3-128";
    std::string weight_map = R"({"w":"model-00000-of-00001.safetensors"})";
    Bytes frame;
    Header header;
    DType dtype = DType::kU8;
  };

  void write_delta(int number, const Delta& delta) const {
    fs::remove_all(version(number));
    if (!delta.frame.empty()) {
      test::write_weights(version(number) / kFile, {list_of("w", delta.dtype, delta.frame)},
                          delta.header);
    }
    test::write_text(version(number) / kIndexName,
                     R"({"metadata":{"version":")" + delta.version + R"(","base_version":")" +
                         delta.base + R"(","delta_encoding":")" + delta.encoding +
                         R"(","compression_format":")" + delta.compression +
                         R"(","checksum_format":")" + delta.digests + R"("},"weight_map":)" +
                         delta.weight_map + "}");
  }

  // To state_ with some bytes changed.
  Delta xor_to(const Bytes& next) const {
    Bytes difference = next;
    for (size_t i = 0; i < next.size(); ++i) difference[i] ^= state_[i];
    Delta delta;
    delta.frame = *compress_frame(difference);
    delta.header = {{"w", xxh3_128_hex(next)}};
    return delta;
  }
  static Delta overwrite(std::vector<uint32_t> words, const Bytes& values, const Bytes& next) {
    Bytes plain = test::bytes_of(words);
    plain.insert(plain.end(), values.begin(), values.end());
    Delta delta;
    delta.encoding = "overwrite";
    delta.frame = *compress_frame(plain);
    delta.header = {{"w", xxh3_128_hex(next)}};
    return delta;
  }
  Bytes changed() const {
    Bytes next = state_;
    next[0] = std::byte{99};
    next[399] = std::byte{98};
    return next;
  }

  void start() {
    write_model(version(1), state_);
    const auto report = import();
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->versions, 1U);
  }

  Bytes state_;
};

TEST_F(SlimeImport, ReadsBothEncodingsAndEveryDigest) {
  start();
  write_delta(2, xor_to(changed()));
  Delta back = overwrite({2, 0, 399}, {state_[0], state_[399]}, state_);
  back.version = "000003";
  back.base = "000002";
  back.digests = "adler32";
  back.header = {{"w", adler32_hex(state_)}};
  write_delta(3, back);
  Delta nothing;
  nothing.version = "000004";
  nothing.base = "000003";
  nothing.weight_map = "{}";
  write_delta(4, nothing);
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 3U);
  EXPECT_EQ(head_words<std::byte>("w"), state_);
  EXPECT_EQ(report->head->message, "imported from slime: weight_v000004");
  ASSERT_TRUE(repository_->checkout(*report->head, scratch_.path() / "out", {}));
  EXPECT_TRUE(fs::exists(scratch_.path() / "out" / "config.json"));

  write_model(version(9), changed());  // a full version resets the chain
  ASSERT_TRUE(import());
  EXPECT_EQ(head_words<std::byte>("w"), changed());
}

TEST_F(SlimeImport, BuildsOnTheEnginesModel) {
  Delta first = xor_to(changed());
  first.version = "000001";
  first.base = "000000";
  write_delta(1, first);
  expect_refused(Code::kNotFound, "--base");
  write_model(scratch_.path() / "engine", state_);
  ImportOptions options;
  options.base = scratch_.path() / "engine";
  const auto report = import(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 2U);
  EXPECT_EQ(head_words<std::byte>("w"), changed());
}

TEST_F(SlimeImport, TakesUncheckedDigestsOnlyWhenTold) {
  start();
  Delta delta = xor_to(changed());
  delta.digests = "blake3";
  delta.header = {};
  write_delta(2, delta);
  expect_refused(Code::kUnsupported, "'blake3'");
  ImportOptions options;
  options.unchecked = true;
  const auto report = import(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(head_words<std::byte>("w"), changed());
}

TEST_F(SlimeImport, RefusesHostileDeltas) {
  start();
  const Bytes next = changed();
  const Delta good = xor_to(next);
  const auto with = [&good](auto edit) {
    Delta delta = good;
    edit(delta);
    return delta;
  };
  const Bytes two = {next[0], next[399]};
  struct Case {
    Code code;
    const char* says;
    Delta delta;
  };
  const std::vector<Case> cases = {
      {Code::kCorrupt, "xxh3-128", with([](Delta& d) { d.header[0].second[0] ^= 1; })},
      {Code::kCorrupt, "no digest", with([](Delta& d) { d.header.clear(); })},
      {Code::kMismatch, "builds on version 0", with([](Delta& d) { d.base = "000000"; })},
      {Code::kCorrupt, "is of version 3", with([](Delta& d) { d.version = "000003"; })},
      {Code::kCorrupt, "decimal", with([](Delta& d) { d.base = "one"; })},
      {Code::kUnsupported, "'lz4'", with([](Delta& d) { d.compression = "lz4"; })},
      {Code::kUnsupported, "'add'", with([](Delta& d) { d.encoding = "add"; })},
      {Code::kUnsupported, "'crc32'", with([](Delta& d) { d.digests = "crc32"; })},
      {Code::kCorrupt, "beside it",
       with([](Delta& d) { d.weight_map = R"({"w":"../x.safetensors"})"; })},
      {Code::kCorrupt, "beside it", with([](Delta& d) { d.weight_map = R"({"w":7})"; })},
      {Code::kCorrupt, "beside it", with([](Delta& d) { d.weight_map = R"({"w":"/etc/x"})"; })},
      {Code::kCorrupt, "weight_map", with([](Delta& d) { d.weight_map = "[]"; })},
      {Code::kCorrupt, "does not name the file", with([](Delta& d) { d.weight_map = "{}"; })},
      {Code::kNotFound, "model-7.safetensors", with([](Delta& d) {
         d.weight_map = R"({"b":"model-7.safetensors","w":"model-00000-of-00001.safetensors"})";
       })},
      {Code::kCorrupt, "2 tensors", with([](Delta& d) {
         d.weight_map = R"({"b":"model-00000-of-00001.safetensors",)"
                        R"("w":"model-00000-of-00001.safetensors"})";
       })},
      {Code::kCorrupt, "against the index",
       with([](Delta& d) { d.weight_map = R"({"b":"model-00000-of-00001.safetensors"})"; })},
      {Code::kCorrupt, "list of U8", with([](Delta& d) { d.dtype = DType::kI8; })},
      {Code::kCorrupt, "damaged", with([](Delta& d) { d.frame[0] ^= std::byte{1}; })},
      {Code::kCorrupt, "too early", with([](Delta& d) { d.frame.pop_back(); })},
      {Code::kCorrupt, "follow the zstd frame", with([](Delta& d) { d.frame.emplace_back(); })},
      {Code::kCorrupt, "more than the 400 bytes",
       with([](Delta& d) { d.frame = *compress_frame(Bytes(64 << 20)); })},
      {Code::kCorrupt, "too early", with([](Delta& d) { d.frame = *compress_frame(Bytes(399)); })},
      {Code::kCorrupt, "401 positions", overwrite({401}, {}, next)},
      {Code::kCorrupt, "4294967295 positions", overwrite({UINT32_MAX}, {}, next)},
      {Code::kCorrupt, "too early", overwrite({400}, {}, next)},
      {Code::kCorrupt, "lies outside", overwrite({2, 0, 400}, two, next)},
      {Code::kCorrupt, "does not ascend", overwrite({2, 0, 0}, two, next)},
      {Code::kCorrupt, "does not ascend", overwrite({2, 399, 0}, two, next)},
      {Code::kCorrupt, "more than the", overwrite({2, 0, 399}, Bytes(3), next)},
      {Code::kCorrupt, "xxh3-128", overwrite({1, 0}, {next[0]}, next)},
  };
  for (const Case& hostile : cases) {
    SCOPED_TRACE(hostile.says);
    write_delta(2, hostile.delta);
    test::reset_largest_allocation();
    expect_refused(hostile.code, hostile.says);
    EXPECT_LT(test::largest_allocation(), size_t{16} << 20);
  }
  write_delta(2, good);
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(head_words<std::byte>("w"), next);
}

TEST_F(SlimeImport, RefusesFramesThatClaimMuchMemory) {
  start();
  // A window of 2^41 bytes, a content of 2^60: the magic number, no single segment, 8-byte size.
  Bytes frame = test::bytes_of(std::vector<uint32_t>{0xFD2FB528});
  for (const int byte : {0xC0, 0xF8, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0})
    frame.push_back(static_cast<std::byte>(byte));
  Delta delta = xor_to(changed());
  delta.frame = frame;
  write_delta(2, delta);
  expect_refused(Code::kCorrupt, "memory");
  // Much longer than any delta of the tensor can be.
  delta.frame = Bytes(100'000);
  write_delta(2, delta);
  expect_refused(Code::kCorrupt, "its frame has 100000 bytes");
}

TEST_F(SlimeImport, WaitsForAVersionThatIsBeingWritten) {
  start();
  write_delta(2, xor_to(changed()));
  fs::rename(version(2) / kIndexName, scratch_.path() / "index");
  auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 0U);
  EXPECT_NE(report->pending.find("weight_v000002"), std::string::npos);
  test::write_text(version(2) / "model.safetensors.index.json.tmp", "{");
  fs::rename(scratch_.path() / "index", version(2) / kIndexName);
  report = import();
  ASSERT_TRUE(report);
  EXPECT_NE(report->pending.find("being written"), std::string::npos);
  fs::remove(version(2) / "model.safetensors.index.json.tmp");
  report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 1U);
  EXPECT_EQ(report->pending, "");

  fs::create_directories(version(3));
  write_model(version(4), state_);
  expect_refused(Code::kCorrupt, "never finished");
  fs::remove(version(3));
  test::write_text(version(4) / kIndexName, R"({"metadata":{"delta_encoding":)");
  expect_refused(Code::kCorrupt, "JSON");
}

TEST_F(SlimeImport, DoesNotWaitForAPipe) {
  start();
  write_delta(2, xor_to(changed()));
  fs::remove(version(2) / kIndexName);
  ASSERT_EQ(::mkfifo((version(2) / kIndexName).c_str(), 0600), 0);
  expect_refused(Code::kCorrupt, "is not a file");
}

TEST_F(SlimeImport, RefusesAFullVersionThatIsNotWhole) {
  start();
  write_model(version(2), state_);
  fs::resize_file(version(2) / "model.safetensors", 200);
  expect_refused(Code::kCorrupt, "weight_v000002");
}

}  // namespace
}  // namespace siltstone
