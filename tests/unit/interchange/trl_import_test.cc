// TRL's files: what each of its writers left is read, everything else is refused before anything
// is published.
#include "base/checksum.h"
#include "support/foreign_folder.h"

namespace siltstone {
namespace {

using test::ForeignTensor;
using test::Header;
using test::list_of;
using test::write_weights;

using Words = std::vector<uint16_t>;

class TrlImport : public test::InterchangeTest {
 protected:
  static Header header(uint64_t step, bool sparse) {
    return {{"format", "sparse_weight_patch"},
            {"version", "1"},
            {"sparse", sparse ? "True" : "False"},
            {"model_version", std::to_string(step)},
            {"encoding", "gap_delta"}};
  }
  std::filesystem::path anchor(int step) const {
    return folder() / "anchors" / ("step_00000" + std::to_string(step) + ".safetensors");
  }
  std::filesystem::path delta(int step) const {
    return folder() / "deltas" / ("step_00000" + std::to_string(step) + ".safetensors");
  }

  // Step 1: w is 0 to 99, b four F32 words, s a scalar.
  void write_anchor(int step = 1) {
    Words w(100);
    for (size_t i = 0; i < w.size(); ++i) w[i] = uint16_t(i);
    write_weights(anchor(step),
                  {list_of("b", DType::kF32, std::vector<uint32_t>{1, 2, 3, 4}),
                   ForeignTensor{"s", DType::kI64, {}, std::vector<std::byte>(8)},
                   list_of("w", DType::kBF16, w)},
                  header(uint64_t(step), false));
  }

  // A delta of w alone.
  static std::vector<ForeignTensor> change(std::vector<uint16_t> gaps, Words values) {
    return {list_of("w.idx", DType::kU16, gaps), list_of("w.val", DType::kBF16, values)};
  }

  void start() {
    write_anchor();
    const auto report = import();
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->versions, 1U);
  }
};

TEST_F(TrlImport, ReadsGapsOfBothWidths) {
  start();
  write_weights(delta(2), change({0, 0, 97}, {7, 8, 9}), header(2, true));
  write_weights(delta(3),
                {list_of("w.idx", DType::kU32, std::vector<uint32_t>{1, 97}),
                 list_of("w.val", DType::kBF16, Words{5, 6}),
                 list_of("b.idx", DType::kU16, std::vector<uint16_t>{3}),
                 list_of("b.val", DType::kF32, std::vector<uint32_t>{77}),
                 list_of("s.idx", DType::kU16, std::vector<uint16_t>{}),
                 list_of("s.val", DType::kI64, std::vector<int64_t>{})},
                header(3, true));
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 2U);
  EXPECT_EQ(report->head->step, 3);
  EXPECT_EQ(report->head->message, "imported from trl: deltas/step_000003.safetensors");
  const Words w = head_words<uint16_t>("w");
  EXPECT_EQ((Words{w[0], w[1], w[2], w[98], w[99]}), (Words{7, 5, 2, 98, 6}));
  EXPECT_EQ(head_words<uint32_t>("b"), (std::vector<uint32_t>{1, 2, 3, 77}));
}

TEST_F(TrlImport, ReadsRawPositions) {
  start();
  Header raw = header(2, true);
  raw.back().second = "raw";
  write_weights(delta(2),
                {list_of("w.idx", DType::kI32, std::vector<int32_t>{3, 99}),
                 list_of("w.val", DType::kBF16, Words{1, 2})},
                raw);
  ASSERT_TRUE(import());
  const Words w = head_words<uint16_t>("w");
  EXPECT_EQ((Words{w[3], w[4], w[99]}), (Words{1, 4, 2}));
}

TEST_F(TrlImport, ReadsTheEarliestWriter) {
  Words w = {1, 2, 3};
  const auto sum = [&w] { return sha256_hex(std::as_bytes(std::span(w))); };
  write_weights(anchor(1), {list_of("w", DType::kBF16, w)},
                {{"format", "anchor_checkpoint"},
                 {"version", "1"},
                 {"model_version", "1"},
                 {"base_model_id", ""},
                 {"checksum_sha256", sum()}});
  w[1] = 9;
  Header header = {{"format", "sparse_weight_patch"},
                   {"version", "1"},
                   {"model_version", "2"},
                   {"prev_model_version", "1"},
                   {"num_changed_params", "1"},
                   {"total_changed_elements", "1"},
                   {"checksum_sha256", sum()},
                   {"changed_params", "[\"w\"]"}};
  const std::vector<ForeignTensor> change = {
      list_of("w.indices", DType::kI32, std::vector<int32_t>{1}),
      list_of("w.values", DType::kBF16, Words{9})};
  write_weights(delta(2), change, header);
  header[2].second = "3";
  header[3].second = "2";
  header[4].second = "0";
  header[5].second = "0";
  write_weights(delta(3), {list_of("__empty_delta__", DType::kI32, std::vector<int32_t>{0})},
                header);
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 3U);
  EXPECT_EQ(head_words<uint16_t>("w"), w);

  header[2].second = "4";
  header[3].second = "3";
  header[4].second = header[5].second = "1";
  write_weights(delta(4), change, header);
  ASSERT_TRUE(import());
  header[2].second = "5";
  header[3].second = "3";
  write_weights(delta(5), change, header);
  expect_refused(Code::kMismatch, "'prev_model_version' is '3', expected 4");
  header[3].second = "4";
  header[6].second = std::string(64, 'a');
  write_weights(delta(5), change, header);
  expect_refused(Code::kCorrupt, "SHA-256");
}

TEST_F(TrlImport, AnAnchorMendsAGapAndADeltaDoesNot) {
  start();
  write_weights(delta(3), change({0}, {7}), header(3, true));
  expect_refused(Code::kMismatch, "step 1 comes before it");
  ImportOptions unchecked;
  unchecked.unchecked = true;
  ASSERT_TRUE(import(unchecked));
  EXPECT_EQ(head_words<uint16_t>("w")[0], 7);
  write_anchor(6);
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->head->step, 6);
  EXPECT_EQ(head_words<uint16_t>("w")[0], 0);
}

TEST_F(TrlImport, StartsAtTheFirstAnchorOrTheBase) {
  write_weights(delta(1), change({0}, {7}), header(1, true));
  expect_refused(Code::kNotFound, "--base");
  write_anchor(2);
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 1U);
  ASSERT_EQ(report->skipped.size(), 1U);
  EXPECT_NE(report->skipped[0].find("step_000001"), std::string::npos);

  const std::filesystem::path base = scratch_.path() / "base";
  std::filesystem::create_directories(base);
  std::filesystem::copy_file(anchor(2), base / "model.safetensors");
  test::write_text(base / "config.json", "{}");
  ImportOptions options;
  options.base = base;
  options.publish.branch = "from-base";
  const auto whole = import(options);
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_EQ(whole->versions, 3U);
  ASSERT_TRUE(repository_->checkout(*whole->head, scratch_.path() / "out", {}));
  EXPECT_TRUE(std::filesystem::exists(scratch_.path() / "out" / "config.json"));
}

TEST_F(TrlImport, RefusesHostileDeltas) {
  start();
  struct Case {
    Code code;
    const char* says;
    std::vector<ForeignTensor> tensors;
    std::function<void(Header*)> edit;
  };
  const auto idx = [](auto list, DType dtype) { return list_of("w.idx", dtype, list); };
  const auto val = [](size_t n) { return list_of("w.val", DType::kBF16, Words(n)); };
  const auto set = [](const char* key, const char* value) {
    return [=](Header* header) {
      for (auto& [name, text] : *header) {
        if (name == key) text = value;
      }
    };
  };
  const auto add = [](const char* key, const char* value) {
    return [=](Header* header) { header->emplace_back(key, value); };
  };
  using I32 = std::vector<int32_t>;
  using U32 = std::vector<uint32_t>;
  const auto good = change({0}, {7});
  const auto raw = set("encoding", "raw");
  const std::vector<Case> cases = {
      {Code::kCorrupt, "lies outside", change({100}, {7}), nullptr},
      {Code::kCorrupt, "lies outside", {idx(U32{50, 49}, DType::kU32), val(2)}, nullptr},
      {Code::kCorrupt, "lies outside", {idx(U32{UINT32_MAX}, DType::kU32), val(1)}, nullptr},
      {Code::kCorrupt, "lies outside", {idx(I32{100}, DType::kI32), val(1)}, raw},
      {Code::kCorrupt, "negative", {idx(I32{-1}, DType::kI32), val(1)}, raw},
      {Code::kCorrupt, "must ascend", {idx(I32{5, 5}, DType::kI32), val(2)}, raw},
      {Code::kCorrupt, "must ascend", {idx(I32{5, 4}, DType::kI32), val(2)}, raw},
      {Code::kCorrupt, "expected U16 or U32", {idx(I32{5}, DType::kI32), val(1)}, nullptr},
      {Code::kCorrupt, "expected I32 or I64", good, raw},
      {Code::kCorrupt, "equal length", change({0, 0}, {7}), nullptr},
      {Code::kCorrupt, "101 positions", change(Words(101), Words(101)), nullptr},
      {Code::kMismatch,
       "the values are F16",
       {good[0], list_of("w.val", DType::kF16, Words{7})},
       nullptr},
      {Code::kCorrupt, "positions without values", {good[0]}, nullptr},
      {Code::kCorrupt, "values without positions", {good[1]}, nullptr},
      {Code::kCorrupt,
       "neither positions",
       {good[0], good[1], list_of("w", DType::kU8, Words{})},
       nullptr},
      {Code::kMismatch,
       "is not in the version",
       {list_of("x.idx", DType::kU16, Words{0}), list_of("x.val", DType::kBF16, Words{0})},
       nullptr},
      {Code::kUnsupported, "'nvcomp_cascaded'", good, set("encoding", "nvcomp_cascaded")},
      {Code::kCorrupt, "no 'encoding'", good, [](Header* header) { header->pop_back(); }},
      {Code::kUnsupported, "'format'", good, set("format", "other")},
      {Code::kUnsupported, "'format' is missing", good,
       [](Header* header) { header->erase(header->begin()); }},
      {Code::kUnsupported, "'version' is '2'", good, set("version", "2")},
      {Code::kCorrupt, "'sparse'", good, set("sparse", "False")},
      {Code::kCorrupt, "'model_version'", good, set("model_version", "3")},
      {Code::kCorrupt, "'model_version'", good, set("model_version", "-2")},
      {Code::kCorrupt, "no 'model_version'", good,
       [](Header* header) { header->erase(header->begin() + 3); }},
      {Code::kCorrupt, "'total_changed_elements'", good, add("total_changed_elements", "2")},
      {Code::kCorrupt, "'num_changed_params'", good, add("num_changed_params", "2")},
      {Code::kMismatch, "'prev_model_version'", good, add("prev_model_version", "0")},
      {Code::kCorrupt, "digest", good, add("siltstone_root", "00")},
  };
  for (const Case& hostile : cases) {
    SCOPED_TRACE(hostile.says);
    Header header = this->header(2, true);
    if (hostile.edit) hostile.edit(&header);
    write_weights(delta(2), hostile.tensors, header);
    expect_refused(hostile.code, hostile.says);
  }
  write_weights(delta(2), good, header(2, true));
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 1U);
}

TEST_F(TrlImport, RefusesFilesThatAreCutOffAndPassesOverOtherNames) {
  start();
  write_weights(delta(2), change({0}, {7}), header(2, true));
  const uint64_t whole = std::filesystem::file_size(delta(2));
  for (const uint64_t length : {uint64_t{0}, uint64_t{7}, uint64_t{20}, whole / 2, whole - 1}) {
    SCOPED_TRACE(length);
    write_weights(delta(2), change({0}, {7}), header(2, true));
    std::filesystem::resize_file(delta(2), length);
    expect_refused(Code::kCorrupt, "step_000002");
  }
  std::filesystem::remove(delta(2));
  for (const char* name : {"step_000002.safetensors.incomplete", ".step_000002.safetensors.new-1",
                           "step_2.safetensors", "readme"}) {
    test::write_text(folder() / "deltas" / name, "half");
  }
  const auto report = import();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->versions, 0U);
}

TEST_F(TrlImport, RefusesFoldersAndBranchesThatItCannotPlace) {
  expect_refused(Code::kNotFound, "there is no folder");
  std::filesystem::create_directories(folder());
  expect_refused(Code::kNotFound, "neither");
  std::filesystem::create_directories(folder() / "anchors");
  expect_refused(Code::kNotFound, "no version yet");
  std::filesystem::create_directories(folder() / "weight_v000001");
  expect_refused(Code::kInvalidArgument, "both");
  std::filesystem::remove(folder() / "weight_v000001");
  write_anchor();
  ASSERT_TRUE(repository_->publish(**view_memory({}), {}));
  expect_refused(Code::kMismatch, "has no step");
}

}  // namespace
}  // namespace siltstone
