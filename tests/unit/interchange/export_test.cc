// What an export writes, and what it never does: overwrite, leave halves, go on from another state.
#include "interchange/foreign_files.h"
#include "support/foreign_folder.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::TinyModel;

class Export : public test::InterchangeTest {
 protected:
  Version publish() {
    PublishOptions options;
    options.step = step_++;
    const auto report = repository_->publish(
        *model_.checkpoint({{"config.json", "{}"}, {"sub/tokenizer.txt", "t"}}), options);
    EXPECT_TRUE(report);
    return report->version;
  }
  Result<ExportReport> export_it(std::string_view range, Layout layout,
                                 const std::string& encoding = "") {
    ExportOptions options;
    options.layout = layout;
    options.encoding = encoding;
    options.on_version = [this](const ExportedVersion& version) { written_.push_back(version); };
    return export_versions(*repository_, range, folder(), options);
  }
  void expect_refused(Code code, std::string_view says, std::string_view range, Layout layout,
                      const std::string& encoding = "") {
    const Result<ExportReport> report = export_it(range, layout, encoding);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, code) << report.error().message;
    EXPECT_NE(report.error().message.find(says), std::string::npos) << report.error().message;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(folder()))
      if (entry.is_regular_file()) out.push_back(entry.path().lexically_relative(folder()));
    std::ranges::sort(out);
    return out;
  }
  static std::string text(const fs::path& path) { return *read_file(path, 1 << 20); }

  TinyModel model_;
  int64_t step_ = 0;
  std::vector<ExportedVersion> written_;
};

TEST_F(Export, WritesTheEncodingOfTrl) {
  model_.tensors.push_back({"wide", DType::kBF16, {70'000}, std::vector<std::byte>(140'000)});
  model_.tensors.push_back({"z", DType::kU8, {300}, std::vector<std::byte>(300)});
  publish();
  model_.tensors[4].bytes[2 * 69'999] = std::byte{5};
  model_.tensors[5].bytes[255] = model_.tensors[5].bytes[0] = std::byte{6};
  const Version second = publish();
  ASSERT_TRUE(export_it("main", Layout::kTrl));
  EXPECT_EQ(names(), (std::vector<std::string>{"anchors/step_000000.safetensors",
                                               "deltas/step_000001.safetensors"}));
  const ForeignFile file = *open_foreign(folder() / "deltas/step_000001.safetensors");
  EXPECT_EQ(file.metadata.at("encoding"), "gap_delta");
  EXPECT_EQ(file.metadata.at("model_version"), "1");
  EXPECT_EQ(file.metadata.at("num_changed_params"), "2");
  EXPECT_EQ(file.metadata.at("total_changed_elements"), "3");
  EXPECT_EQ(file.metadata.at("siltstone_version"), "main@1");
  EXPECT_EQ(file.metadata.at("siltstone_root"), second.root);
  const auto read = [&file](size_t i) { return *read_tensor(*file.checkpoint, i); };
  ASSERT_EQ(file.checkpoint->tensors().size(), 4U);
  EXPECT_EQ(file.checkpoint->tensors()[0], (TensorInfo{"wide.idx", DType::kU32, {1}, 4}));
  EXPECT_EQ(read(0), test::bytes_of(std::vector<uint32_t>{69'999}));
  EXPECT_EQ(file.checkpoint->tensors()[1], (TensorInfo{"wide.val", DType::kBF16, {1}, 2}));
  EXPECT_EQ(file.checkpoint->tensors()[2], (TensorInfo{"z.idx", DType::kU16, {2}, 4}));
  EXPECT_EQ(read(2), test::bytes_of(std::vector<uint16_t>{0, 254}));
  EXPECT_EQ(file.checkpoint->tensors()[3], (TensorInfo{"z.val", DType::kU8, {2}, 2}));
}

TEST_F(Export, WritesAChangeOfSubByteElementsWhole) {
  model_.tensors.push_back({"z", DType::kF4, {8}, std::vector<std::byte>(4)});
  publish();
  model_.tensors[4].bytes[0] = std::byte{1};
  publish();
  model_.step(3);
  model_.tensors[4].bytes[0] = std::byte{2};
  publish();
  ASSERT_TRUE(export_it("main@0..main@1", Layout::kTrl));
  ASSERT_EQ(written_.size(), 2U);
  EXPECT_TRUE(written_[1].full);
  model_.tensors[4].bytes[0] = std::byte{2};
  publish();
  ASSERT_TRUE(export_it("main", Layout::kTrl));
  EXPECT_EQ(names(), (std::vector<std::string>{
                         "anchors/step_000000.safetensors", "anchors/step_000001.safetensors",
                         "anchors/step_000002.safetensors", "deltas/step_000003.safetensors"}));
}

TEST_F(Export, WritesWholeFoldersForSlime) {
  publish();
  model_.step(1);
  publish();
  ASSERT_TRUE(export_it("main", Layout::kSlime));
  EXPECT_EQ(names(),
            (std::vector<std::string>{
                "weight_v000000/config.json", "weight_v000000/model.safetensors",
                "weight_v000000/model.safetensors.index.json", "weight_v000000/sub/tokenizer.txt",
                "weight_v000001/model-00000-of-00001.safetensors",
                "weight_v000001/model.safetensors.index.json"}));
  EXPECT_EQ(text(folder() / "weight_v000000/model.safetensors.index.json").find("delta_encoding"),
            std::string::npos);
  TinyModel first;
  EXPECT_TRUE(first.is_in(folder() / "weight_v000000"));
}

TEST_F(Export, NeverOverwrites) {
  const Version first = publish();
  for (const Layout layout : {Layout::kTrl, Layout::kSlime}) {
    ASSERT_TRUE(export_it("main@0", layout));
    const auto before = names();
    TinyModel other;
    other.step(77);
    const auto again = *Repository::init(std::make_shared<MemoryStore>("mem://other"));
    ASSERT_TRUE(again->publish(*other.checkpoint(), {}));
    ExportOptions options;
    options.layout = layout;
    const auto report = export_versions(*again, "main", folder(), options);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, Code::kConflict) << report.error().message;
    EXPECT_EQ(names(), before);
    EXPECT_EQ(export_it("main@0", layout)->present, 1U);
  }
  // Of another program: it cannot be told which version it is.
  publish();
  test::write_text(folder() / "weight_v000001" / "model.safetensors", "x");
  expect_refused(Code::kConflict, "as far as can be told", "main", Layout::kSlime);
  test::write_text(folder() / "deltas" / "step_000001.safetensors", "half");
  expect_refused(Code::kCorrupt, "step_000001", "main", Layout::kTrl);
  EXPECT_EQ(first.id.seq, 0U);
}

TEST_F(Export, BeginsAnewBehindAnotherState) {
  publish();
  model_.step(1);
  publish();
  test::write_weights(folder() / "anchors/step_000000.safetensors", {}, {{"format", "pt"}});
  ASSERT_TRUE(export_it("main@1", Layout::kTrl));
  EXPECT_TRUE(written_.back().full);
}

TEST_F(Export, LeavesNothingWhereItFailed) {
  publish();
  for (const Layout layout : {Layout::kTrl, Layout::kSlime}) {
    ExportOptions options;
    options.layout = layout;
    options.progress = [](uint64_t, uint64_t) { return false; };
    const auto report = export_versions(*repository_, "main", folder(), options);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, Code::kCancelled);
    EXPECT_EQ(names(), std::vector<std::string>());
  }
  // What a killed export leaves has names that readers and the next export pass over.
  test::write_text(folder() / "anchors/.step_000000.safetensors.new-0123456789abcdef", "half");
  test::write_text(folder() / ".weight_v000000.new-0123456789abcdef/model.safetensors", "half");
  ASSERT_TRUE(export_it("main", Layout::kTrl));
  ASSERT_TRUE(export_it("main", Layout::kSlime));
  for (const Layout layout : {Layout::kTrl, Layout::kSlime}) {
    const auto again = *Repository::init(std::make_shared<MemoryStore>("mem://again"));
    ImportOptions options;
    options.layout = layout;
    const auto report = import_versions(*again, folder(), options);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->versions, 1U);
  }
}

TEST_F(Export, ChecksWhatItIsAskedFor) {
  publish();
  publish();
  expect_refused(Code::kInvalidArgument, "no encoding 'xor'", "main", Layout::kTrl, "xor");
  expect_refused(Code::kInvalidArgument, "no encoding 'raw'", "main", Layout::kSlime, "raw");
  expect_refused(Code::kInvalidArgument, "does not come before", "main@1..main@0", Layout::kTrl);
  expect_refused(Code::kNotFound, "", "main@7", Layout::kTrl);
  expect_refused(Code::kNotFound, "", "other", Layout::kTrl);
  EXPECT_FALSE(fs::exists(folder()));
}

}  // namespace
}  // namespace siltstone
