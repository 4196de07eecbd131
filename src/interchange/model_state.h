// A whole model in host memory that moves from version to version and can be published at each.
//
// It keeps the layout of the files and the companions of the full version it came from. After a
// failed change its bytes are unspecified: whoever changes it publishes it only after success.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "siltstone/checkpoint.h"
#include "siltstone/repository.h"

namespace siltstone {

class ModelState final : public Checkpoint {
 public:
  // A copy of everything in `from`.
  static Result<std::unique_ptr<ModelState>> read(const Checkpoint& from, unsigned threads);
  static Result<std::unique_ptr<ModelState>> load(Repository& repository, const Version& version,
                                                  const LoadOptions& options);

  // The words of `from`, whose tensors are the same.
  Status refill(const Checkpoint& from, unsigned threads);
  // As if the model were saved as one file.
  Status use_plain_layout();
  void take_companions(const ModelState& from);

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  Status read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const override;
  std::span<const std::byte> resident(size_t index) const override { return bytes_[index]; }
  std::span<const WeightFile> files() const override { return files_; }
  std::span<const CompanionFile> companions() const override { return companions_; }
  Result<std::string> read_companion(size_t index) const override;
  std::span<const std::string> skipped() const override { return {}; }
  std::filesystem::path root() const override { return {}; }

  // Index of a tensor; tensors().size() if there is none of that name.
  size_t find(std::string_view name) const;
  MutByteSpan bytes(size_t index) { return bytes_[index]; }
  std::vector<MutTensorView> views();
  uint64_t total_elements() const;
  // The digest that versions are identified by (Version::root).
  Result<std::string> state_digest(unsigned threads) const;

 private:
  explicit ModelState(std::span<const TensorInfo> tensors);

  std::vector<TensorInfo> tensors_;
  Arena arena_;
  std::vector<MutByteSpan> bytes_;  // parallel to tensors_, in arena_
  std::vector<WeightFile> files_;
  std::vector<CompanionFile> companions_;
  std::vector<std::string> contents_;  // parallel to companions_
};

}  // namespace siltstone
