#include <algorithm>
#include <cstring>

#include "base/bf16.h"
#include "base/bytes.h"
#include "base/try.h"
#include "siltstone/checkpoint.h"
#include "tensor/folder.h"
#include "tensor/range.h"
#include "tensor/safetensors.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

constexpr uint64_t kDataAlignment = 8;

class MemoryCheckpoint final : public Checkpoint {
 public:
  // REQUIRES: `views` are checked and sorted by name.
  Status describe(std::vector<TensorView> views, const ViewOptions& options);

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  Status read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const override;
  std::span<const std::byte> resident(size_t index) const override { return bytes_[index]; }
  std::span<const std::byte> masters(size_t index) const override { return masters_[index]; }
  std::span<const WeightFile> files() const override { return {&file_, 1}; }
  std::span<const CompanionFile> companions() const override { return companions_; }
  Result<std::string> read_companion(size_t index) const override {
    if (index < contents_.size()) return contents_[index];
    return Error{Code::kInvalidArgument,
                 "this checkpoint has no companion file " + std::to_string(index)};
  }
  std::span<const std::string> skipped() const override { return {}; }
  std::filesystem::path root() const override { return {}; }

 private:
  std::vector<TensorInfo> tensors_;
  // Parallel to tensors_; of a tensor with elements, one of the two is empty.
  std::vector<std::span<const std::byte>> bytes_;
  std::vector<std::span<const std::byte>> masters_;
  WeightFile file_;
  std::vector<CompanionFile> companions_;
  std::vector<std::string> contents_;  // parallel to companions_
};

// `out`.size() bytes of the words `f32` rounded, from byte `offset_bytes` of the rounded ones. The
// plain way; whoever reads much takes the kernels and masters().
void read_rounded(ByteSpan f32, uint64_t offset_bytes, MutByteSpan out) {
  const auto word = [f32](uint64_t i) {
    return bf16_of_f32(load_le<uint32_t>(f32.data() + 4 * i));
  };
  size_t done = 0;
  if (offset_bytes % 2 != 0 && !out.empty()) {
    out[done++] = static_cast<std::byte>(word(offset_bytes / 2) >> 8);
  }
  for (; done + 2 <= out.size(); done += 2) {
    store_le(out.data() + done, word((offset_bytes + done) / 2));
  }
  if (done < out.size()) {
    out[done] = static_cast<std::byte>(word((offset_bytes + done) / 2) & 0xff);
  }
}

Status MemoryCheckpoint::describe(std::vector<TensorView> views, const ViewOptions& options) {
  uint64_t total_bytes = 0;
  for (TensorView& view : views) {
    const bool rounded = options.f32_as_bf16 && view.dtype == DType::kF32;
    const DType dtype = rounded ? DType::kBF16 : view.dtype;
    const uint64_t size_bytes = rounded ? view.bytes.size() / 2 : view.bytes.size();
    total_bytes += size_bytes;  // views may overlap, but 4 Mi of them cannot reach 2^64 bytes
    tensors_.push_back({std::move(view.name), dtype, std::move(view.shape), size_bytes});
    bytes_.push_back(rounded ? ByteSpan() : view.bytes);
    masters_.push_back(rounded ? view.bytes : ByteSpan());
  }
  const std::string prefix = make_safetensors_prefix(tensors_, {{"format", "pt"}}, kDataAlignment);
  if (prefix.size() - kLengthFieldBytes > kMaxHeaderBytes) {
    return Error{Code::kInvalidArgument, "the header of these tensors would have " +
                                             std::to_string(prefix.size() - kLengthFieldBytes) +
                                             " bytes, at most " + std::to_string(kMaxHeaderBytes) +
                                             " are allowed"};
  }
  file_.path = "model.safetensors";
  file_.header = prefix.substr(kLengthFieldBytes);
  file_.size_bytes = prefix.size() + total_bytes;
  uint64_t offset = prefix.size();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    file_.entries.push_back({i, offset});
    offset += tensors_[i].size_bytes;
  }
  for (const auto& [path, content] : options.companions) {
    companions_.push_back({path, content.size()});
    contents_.push_back(content);
  }
  return {};
}

Status MemoryCheckpoint::read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const {
  SILT_TRY(check_range(tensors_[index], offset_bytes, out.size()));
  if (!masters_[index].empty()) {
    read_rounded(masters_[index], offset_bytes, out);
  } else if (!out.empty()) {
    std::memcpy(out.data(), bytes_[index].data() + offset_bytes, out.size());
  }
  return {};
}

Status check_view(const TensorView& view) {
  const auto bad = [&](const std::string& what) -> Status {
    return Error{Code::kInvalidArgument, "tensor " + quote(view.name) + " " + what};
  };
  if (view.name.empty() || view.name.size() > kMaxNameBytes || !is_clean_text(view.name)) {
    return bad("needs a name of 1 to " + std::to_string(kMaxNameBytes) +
               " bytes of UTF-8 without control characters");
  }
  if (view.name == "__metadata__") return bad("has the name that headers keep for metadata");
  const DTypeInfo* dtype = find_dtype(view.dtype);
  if (dtype == nullptr) {
    return bad("has the unknown dtype code " + std::to_string(static_cast<int>(view.dtype)));
  }
  if (view.device.kind != Device::kCpu) return bad("does not lie in the memory of the CPU");
  if (view.shape.size() > kMaxRank) {
    return bad("has " + std::to_string(view.shape.size()) + " dimensions, at most " +
               std::to_string(kMaxRank) + " are allowed");
  }
  const std::string layout = std::string(dtype->name) + " " + show_shape(view.shape);
  const auto size_bytes = tensor_size_bytes(view.dtype, view.shape);
  if (!size_bytes) {
    return bad("cannot be " + layout +
               ": a dimension is negative, or its elements do not fill whole bytes, or they need "
               "more than 2^63 - 1");
  }
  if (*size_bytes != view.bytes.size()) {
    return bad("is " + layout + ", which needs " + std::to_string(*size_bytes) +
               " bytes, but has " + std::to_string(view.bytes.size()));
  }
  return {};
}

Status check_companions(const std::map<std::string, std::string>& companions) {
  if (companions.size() > kMaxCompanions) {
    return Error{Code::kInvalidArgument, "there are " + std::to_string(companions.size()) +
                                             " companion files, at most " +
                                             std::to_string(kMaxCompanions) + " are allowed"};
  }
  for (const auto& [path, content] : companions) {
    if (content.size() > kMaxCompanionBytes) {
      return Error{Code::kInvalidArgument, "companion file " + quote(path) + " has " +
                                               std::to_string(content.size()) + " bytes, at most " +
                                               std::to_string(kMaxCompanionBytes) + " are allowed"};
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> view_memory(std::vector<TensorView> tensors,
                                                const ViewOptions& options) {
  if (tensors.size() > kMaxTensors) {
    return Error{Code::kInvalidArgument, "there are " + std::to_string(tensors.size()) +
                                             " tensors, at most " + std::to_string(kMaxTensors) +
                                             " are allowed"};
  }
  for (const TensorView& view : tensors) SILT_TRY(check_view(view));
  std::ranges::sort(tensors, {}, &TensorView::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorView::name);
  if (twice != tensors.end()) {
    return Error{Code::kInvalidArgument, "tensor " + quote(twice->name) + " is given twice"};
  }
  SILT_TRY(check_companions(options.companions));
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  SILT_TRY(checkpoint->describe(std::move(tensors), options));
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace siltstone
