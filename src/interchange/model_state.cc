#include "interchange/model_state.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/digest.h"
#include "repo/bucket.h"
#include "repo/state.h"
#include "repo/weight_files.h"
#include "tensor/range.h"

namespace siltstone {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kReadBytes = uint64_t{64} << 20;

}  // namespace

ModelState::ModelState(std::span<const TensorInfo> tensors)
    : tensors_(tensors.begin(), tensors.end()) {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors_) total += align_up(tensor.size_bytes, kAlignment);
  arena_ = Arena(total);
  uint64_t at = 0;
  for (const TensorInfo& tensor : tensors_) {
    bytes_.push_back(arena_.bytes().subspan(at, tensor.size_bytes));
    at += align_up(tensor.size_bytes, kAlignment);
  }
}

Result<std::unique_ptr<ModelState>> ModelState::read(const Checkpoint& from, unsigned threads) {
  auto state = std::unique_ptr<ModelState>(new ModelState(from.tensors()));
  state->files_.assign(from.files().begin(), from.files().end());
  state->companions_.assign(from.companions().begin(), from.companions().end());
  for (size_t i = 0; i < state->companions_.size(); ++i) {
    SILT_ASSIGN(std::string content, from.read_companion(i));
    state->contents_.push_back(std::move(content));
  }
  SILT_TRY(state->refill(from, threads));
  return state;
}

Result<std::unique_ptr<ModelState>> ModelState::load(Repository& repository, const Version& version,
                                                     const LoadOptions& options) {
  Bucket& bucket = as_bucket(repository);
  SILT_ASSIGN(const Commit commit, bucket.history().read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(commit.schema));
  auto state = std::unique_ptr<ModelState>(new ModelState(schema->tensors));
  state->files_ = schema->files;
  for (const CompanionRef& companion : schema->companions) {
    SILT_ASSIGN(std::string content, fetch_companion(*bucket.store(), companion));
    state->companions_.push_back({companion.path, companion.size_bytes});
    state->contents_.push_back(std::move(content));
  }
  SILT_TRY(repository.load(version, state->views(), options));
  return state;
}

Status ModelState::refill(const Checkpoint& from, unsigned threads) {
  SILT_TRY(parallel_for(tensors_.size(), threads, [&](uint64_t tensor, unsigned) -> Status {
    const MutByteSpan bytes = bytes_[tensor];
    for (uint64_t at = 0; at < bytes.size(); at += kReadBytes) {
      const uint64_t length = std::min<uint64_t>(kReadBytes, bytes.size() - at);
      SILT_TRY(from.read(tensor, at, bytes.subspan(at, length)));
    }
    return {};
  }));
  return from.check_unchanged();
}

Status ModelState::use_plain_layout() {
  std::vector<TensorView> plain;
  for (size_t i = 0; i < tensors_.size(); ++i)
    plain.push_back({tensors_[i].name, tensors_[i].dtype, tensors_[i].shape, bytes_[i], {}});
  SILT_ASSIGN(const std::unique_ptr<Checkpoint> view, view_memory(std::move(plain)));
  files_.assign(view->files().begin(), view->files().end());
  return {};
}

void ModelState::take_companions(const ModelState& from) {
  companions_ = from.companions_;
  contents_ = from.contents_;
  // An index speaks of files that this state is not saved in.
  for (size_t i = companions_.size(); i-- > 0;) {
    if (!companions_[i].path.ends_with(".safetensors.index.json")) continue;
    companions_.erase(companions_.begin() + static_cast<ptrdiff_t>(i));
    contents_.erase(contents_.begin() + static_cast<ptrdiff_t>(i));
  }
}

Status ModelState::read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const {
  SILT_TRY(check_range(tensors_[index], offset_bytes, out.size()));
  if (!out.empty()) std::memcpy(out.data(), bytes_[index].data() + offset_bytes, out.size());
  return {};
}

Result<std::string> ModelState::read_companion(size_t index) const {
  if (index < contents_.size()) return contents_[index];
  return Error{Code::kInvalidArgument, "there is no companion file " + std::to_string(index)};
}

size_t ModelState::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(
      tensors_, name, {}, [](const TensorInfo& tensor) { return std::string_view(tensor.name); });
  if (at == tensors_.end() || at->name != name) return tensors_.size();
  return static_cast<size_t>(at - tensors_.begin());
}

std::vector<MutTensorView> ModelState::views() {
  std::vector<MutTensorView> out;
  for (size_t i = 0; i < tensors_.size(); ++i)
    out.push_back({tensors_[i].name, tensors_[i].dtype, tensors_[i].shape, bytes_[i], {}});
  return out;
}

uint64_t ModelState::total_elements() const {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors_)
    total += tensor.size_bytes * 8 / dtype_info(tensor.dtype).bits;
  return total;
}

Result<std::string> ModelState::state_digest(unsigned threads) const {
  const CheckpointBytes all(*this);
  SILT_ASSIGN(const std::vector<Sum128> sums, sum_all(tensors_, all, threads));
  return state_root(state_rows(tensors_, sums));
}

}  // namespace siltstone
