// Folders of other layouts, written word by word, for tests of imports.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "siltstone/interchange.h"
#include "store/memory.h"
#include "support/scratch_folder.h"
#include "tensor/safetensors.h"

namespace siltstone::test {

struct ForeignTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <class T>
ForeignTensor list_of(std::string name, DType dtype, const std::vector<T>& values) {
  return {std::move(name), dtype, {static_cast<int64_t>(values.size())}, bytes_of(values)};
}

using Header = std::vector<std::pair<std::string, std::string>>;

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline void write_weights(const std::filesystem::path& path,
                          const std::vector<ForeignTensor>& tensors, const Header& header) {
  std::vector<TensorInfo> infos;
  std::string data;
  for (const ForeignTensor& tensor : tensors) {
    infos.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes.size()});
    data.append(as_text(tensor.bytes));
  }
  write_text(path, make_safetensors_prefix(infos, header, 8) + data);
}

// A repository in memory and a folder to import from.
class InterchangeTest : public ::testing::Test {
 protected:
  Result<ImportReport> import(ImportOptions options = {}) {
    options.publish.threads = 2;
    return import_versions(*repository_, folder(), options);
  }

  // The import must fail so, and the branch must be where it was.
  void expect_refused(Code code, std::string_view says, const ImportOptions& options = {}) {
    const Result<Version> before = repository_->head("main");
    const Result<ImportReport> report = import(options);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, code) << report.error().message;
    EXPECT_NE(report.error().message.find(says), std::string::npos) << report.error().message;
    const Result<Version> after = repository_->head("main");
    ASSERT_EQ(before.has_value(), after.has_value());
    if (before) {
      EXPECT_EQ(before->id, after->id);
    }
  }

  // The words of a tensor of the branch's head.
  template <class T>
  std::vector<T> head_words(const std::string& name) {
    const Version head = *repository_->head("main");
    std::vector<MutTensorView> views;
    std::vector<std::vector<std::byte>> memory;
    std::vector<T> out;
    const std::vector<TensorInfo> tensors = *repository_->tensors(head);
    for (const TensorInfo& tensor : tensors) memory.emplace_back(tensor.size_bytes);
    for (size_t i = 0; i < tensors.size(); ++i)
      views.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, memory[i], {}});
    const Result<LoadReport> loaded = repository_->load(head, views, {});
    EXPECT_TRUE(loaded);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name != name) continue;
      out.resize(memory[i].size() / sizeof(T));
      std::memcpy(out.data(), memory[i].data(), memory[i].size());
    }
    return out;
  }

  std::filesystem::path folder() const { return scratch_.path() / "foreign"; }

  const ScratchFolder scratch_;
  const std::shared_ptr<Store> store_ = std::make_shared<MemoryStore>("mem://interchange");
  const std::unique_ptr<Repository> repository_ = *Repository::init(store_);
};

}  // namespace siltstone::test
