// Load: rebuild a version into the caller's memory.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/try.h"
#include "repo/bucket.h"
#include "repo/rebuild.h"

namespace siltstone {
namespace {

Error mismatch(const Commit& commit, const std::string& problem) {
  return {Code::kMismatch, commit.id.name() + " cannot be loaded into these tensors: " + problem};
}

// Sorts `views` and compares them with the version's tensors, which are sorted.
Status match(const Commit& commit, const std::vector<TensorInfo>& tensors,
             std::vector<MutTensorView>* views) {
  std::ranges::sort(*views, {}, &MutTensorView::name);
  for (size_t i = 0; i < std::max(views->size(), tensors.size()); ++i) {
    const MutTensorView* view = i < views->size() ? &(*views)[i] : nullptr;
    const TensorInfo* info = i < tensors.size() ? &tensors[i] : nullptr;
    if (info == nullptr || (view != nullptr && view->name < info->name))
      return mismatch(commit, "it has no tensor '" + view->name + "'");
    if (view == nullptr || info->name < view->name)
      return mismatch(commit, "its tensor '" + info->name + "' is not among them");
    if (view->dtype != info->dtype || view->shape != info->shape)
      return mismatch(commit, "tensor '" + info->name + "' has another dtype or shape");
    if (view->device.kind != Device::kCpu)
      return Error{Code::kUnsupported, "tensor '" + view->name + "' is not in host memory"};
    if (view->bytes.size() != info->size_bytes)
      return Error{Code::kInvalidArgument, "tensor '" + view->name + "' has " +
                                               std::to_string(view->bytes.size()) +
                                               " bytes, which its dtype and shape do not give"};
  }
  return {};
}

}  // namespace

Result<std::vector<TensorInfo>> Bucket::tensors(const Version& version) {
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, history_.schema(commit.schema));
  return schema->tensors;
}

Result<LoadReport> Bucket::load(const Version& version, std::vector<MutTensorView> tensors,
                                const LoadOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, history_.schema(commit.schema));
  SILT_TRY(match(commit, schema->tensors, &tensors));
  Meter meter(options.progress, schema->total_bytes());
  SILT_ASSIGN(
      const ProvenVersion proven,
      rebuild_version(
          *this, commit, *schema,
          {.threads = options.threads, .memory_bytes = options.memory_bytes, .meter = &meter},
          [&tensors](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
            std::memcpy(tensors[tensor].bytes.data() + offset, words.data(), words.size());
            return {};
          }));
  LoadReport report;
  report.version = commit.version();
  report.bytes_fetched = proven.fetched_bytes;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace siltstone
