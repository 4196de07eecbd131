// Versions that go out in every layout and encoding and come back the same, however the export is
// cut into pieces, and whatever the dtypes are.
#include "support/foreign_folder.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using test::TinyModel;

struct Way {
  Layout layout;
  const char* encoding;
};

class RoundTrip : public test::InterchangeTest, public ::testing::WithParamInterface<Way> {
 protected:
  RoundTrip() {
    const auto add = [this](const char* name, DType dtype, std::vector<int64_t> shape) {
      std::vector<std::byte> bytes(*tensor_size_bytes(dtype, shape));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
      model_.tensors.push_back({name, dtype, std::move(shape), std::move(bytes)});
    };
    add("wide", DType::kBF16, {200'000});
    add("x.idx", DType::kI64, {40});
    add("x.values", DType::kU8, {3, 30});
    add("z.complex", DType::kC64, {9});
    add("z.single", DType::kI32, {});
  }

  Version publish(std::map<std::string, std::string> companions = {}) {
    PublishOptions options;
    options.step = step_++;
    const auto report = repository_->publish(*model_.checkpoint(std::move(companions)), options);
    EXPECT_TRUE(report);
    return report->version;
  }

  Result<ExportReport> export_it(std::string_view range) {
    written_.clear();
    ExportOptions options;
    options.layout = GetParam().layout;
    options.encoding = GetParam().encoding;
    options.threads = 2;
    options.on_version = [this](const ExportedVersion& version) { written_.push_back(version); };
    return export_versions(*repository_, range, folder(), options);
  }

  // Imports the folder into a new repository; every version must be there, with the same root.
  void expect_import(const std::vector<Version>& versions) {
    const auto again = *Repository::init(std::make_shared<MemoryStore>("mem://again"));
    const Result<ImportReport> report = import_versions(*again, folder(), {});
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->layout, GetParam().layout);
    ASSERT_EQ(report->versions, versions.size());
    std::vector<Version> found = *again->log("main", 100);
    std::ranges::reverse(found);
    ASSERT_EQ(found.size(), versions.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].root, versions[i].root) << i;
      EXPECT_EQ(found[i].step, int64_t(versions[i].id.seq));
      EXPECT_EQ(found[i].message.find("imported from "), 0U);
    }
    const Result<ImportReport> none = import_versions(*again, folder(), {});
    ASSERT_TRUE(none) << none.error().message;
    EXPECT_EQ(none->versions, 0U);
    EXPECT_EQ(none->head->root, versions.back().root);
  }

  std::mt19937_64 random_{3};
  TinyModel model_;
  int64_t step_ = 0;
  std::vector<ExportedVersion> written_;
};

TEST_P(RoundTrip, ComesBackWhole) {
  std::vector<Version> versions = {publish()};
  for (int i = 1; i < 6; ++i) {
    if (i != 3) model_.step(uint64_t(i));  // one version in which nothing changes
    if (i == 2) model_.tensors[4].bytes[399'999] ^= std::byte{1};
    versions.push_back(publish());
  }
  ASSERT_TRUE(export_it("main@0..main@2"));
  ASSERT_EQ(written_.size(), 3U);
  EXPECT_TRUE(written_[0].full);
  EXPECT_FALSE(written_[1].full);
  EXPECT_FALSE(written_[2].full);
  const Result<ExportReport> rest = export_it("main");
  ASSERT_TRUE(rest) << rest.error().message;
  EXPECT_EQ(rest->present, 3U);
  ASSERT_EQ(written_.size(), 3U);
  EXPECT_FALSE(written_[0].full);
  EXPECT_EQ(written_[0].changed_elements, 0U);
  expect_import(versions);
}

TEST_P(RoundTrip, GoesOnWhileVersionsCome) {
  const auto again = *Repository::init(std::make_shared<MemoryStore>("mem://again"));
  for (int i = 0; i < 4; ++i) {
    const Version version = publish();
    ASSERT_TRUE(export_it("main"));
    ASSERT_EQ(written_.size(), 1U);
    EXPECT_EQ(written_[0].full, i == 0);
    const Result<ImportReport> report = import_versions(*again, folder(), {});
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->versions, 1U);
    EXPECT_EQ(report->head->root, version.root);
    model_.step(uint64_t(i + 9));
  }
}

TEST_P(RoundTrip, WritesAChangedSetOfTensorsWhole) {
  std::vector<Version> versions = {publish()};
  model_.tensors.pop_back();
  versions.push_back(publish());
  model_.step(1);
  versions.push_back(publish());
  ASSERT_TRUE(export_it("main"));
  ASSERT_EQ(written_.size(), 3U);
  EXPECT_TRUE(written_[1].full);
  EXPECT_FALSE(written_[2].full);
  expect_import(versions);
}

TEST_P(RoundTrip, StartsInTheMiddle) {
  std::vector<Version> versions;
  for (int i = 0; i < 4; ++i) {
    versions.push_back(publish());
    model_.step(uint64_t(i));
  }
  ASSERT_TRUE(export_it("main@2"));
  ASSERT_TRUE(export_it("main@3"));
  EXPECT_FALSE(written_.front().full);
  expect_import({versions.begin() + 2, versions.end()});
}

TEST_P(RoundTrip, PassesOverAFence) {
  std::vector<Version> versions = {publish()};
  versions.push_back(*repository_->fence("main"));
  model_.step(1);
  versions.push_back(publish());
  const Result<ExportReport> report = export_it("main");
  ASSERT_TRUE(report) << report.error().message;
  expect_import(versions);
}

INSTANTIATE_TEST_SUITE_P(Layouts, RoundTrip,
                         ::testing::Values(Way{Layout::kTrl, "gap_delta"}, Way{Layout::kTrl, "raw"},
                                           Way{Layout::kTrl, "indices"}, Way{Layout::kSlime, "xor"},
                                           Way{Layout::kSlime, "overwrite"}),
                         [](const auto& way) {
                           return std::string(layout_name(way.param.layout)) + "_" +
                                  way.param.encoding;
                         });

}  // namespace
}  // namespace siltstone
