// A model of a few hundred words that takes optimizer-like steps, for tests of whole flows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "siltstone/checkpoint.h"
#include "siltstone/repository.h"
#include "support/scratch_folder.h"

namespace siltstone::test {

struct TinyModel {
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;
    bool operator==(const Tensor&) const = default;
  };
  std::vector<Tensor> tensors;

  TinyModel() {
    std::mt19937_64 random(7);
    const auto add = [&](std::string name, DType dtype, std::vector<int64_t> shape) {
      std::vector<std::byte> bytes(*tensor_size_bytes(dtype, shape));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      tensors.push_back({std::move(name), dtype, std::move(shape), std::move(bytes)});
    };
    add("bias", DType::kF32, {33});
    add("mask", DType::kBool, {5});
    add("scalar", DType::kF16, {});
    add("weight", DType::kBF16, {64, 48});
  }

  bool operator==(const TinyModel&) const = default;

  // Flips a bit of about one byte in forty, at least one per tensor.
  void step(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (Tensor& tensor : tensors) {
      for (size_t i = 0; i < tensor.bytes.size() / 40 + 1; ++i) {
        tensor.bytes[random() % tensor.bytes.size()] ^= static_cast<std::byte>(1 << random() % 8);
      }
    }
  }

  std::unique_ptr<Checkpoint> checkpoint(std::map<std::string, std::string> companions = {}) const {
    std::vector<TensorView> views;
    for (const Tensor& t : tensors) views.push_back({t.name, t.dtype, t.shape, t.bytes, {}});
    ViewOptions options;
    options.companions = std::move(companions);
    return *view_memory(std::move(views), options);
  }

  std::vector<MutTensorView> views() {
    std::vector<MutTensorView> out;
    for (Tensor& t : tensors) out.push_back({t.name, t.dtype, t.shape, t.bytes, {}});
    return out;
  }

  // Whether the folder's files hold exactly these words.
  ::testing::AssertionResult is_in(const std::filesystem::path& folder) const {
    const Result<std::unique_ptr<Checkpoint>> found = open_checkpoint(folder);
    if (!found) return ::testing::AssertionFailure() << found.error().message;
    if ((*found)->tensors().size() != tensors.size()) {
      return ::testing::AssertionFailure() << "other tensors";
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      std::vector<std::byte> bytes(tensors[i].bytes.size());
      const Status read = (*found)->read(i, 0, bytes);
      if (!read) return ::testing::AssertionFailure() << read.error().message;
      if ((*found)->tensors()[i].name != tensors[i].name || bytes != tensors[i].bytes) {
        return ::testing::AssertionFailure() << "tensor " << tensors[i].name << " differs";
      }
    }
    return ::testing::AssertionSuccess();
  }
};

}  // namespace siltstone::test
