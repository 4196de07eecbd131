// Load: rebuild a version into the caller's memory.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/try.h"
#include "repo/base.h"
#include "repo/bucket.h"
#include "repo/rebuild.h"

namespace siltstone {
namespace {

Error mismatch(const Commit& commit, const std::string& problem) {
  return {Code::kMismatch, commit.id.name() + " cannot be loaded into these tensors: " + problem};
}

// Where the version's tensors, which are sorted, go: each to its view, or nowhere.
Result<std::vector<const MutTensorView*>> match(const Commit& commit,
                                                const std::vector<TensorInfo>& tensors, bool some,
                                                std::vector<MutTensorView>* views) {
  std::ranges::sort(*views, {}, &MutTensorView::name);
  std::vector<const MutTensorView*> out(tensors.size());
  auto view = views->begin();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = tensors[i];
    if (view != views->end() && view->name < info.name) break;
    if (view == views->end() || info.name < view->name) {
      if (some) continue;
      return mismatch(commit, "its tensor '" + info.name + "' is not among them");
    }
    if (view->dtype != info.dtype || view->shape != info.shape)
      return mismatch(commit, "tensor '" + info.name + "' has another dtype or shape");
    if (view->device.kind != Device::kCpu)
      return Error{Code::kUnsupported, "tensor '" + view->name + "' is not in host memory"};
    if (view->bytes.size() != info.size_bytes)
      return Error{Code::kInvalidArgument, "tensor '" + view->name + "' has " +
                                               std::to_string(view->bytes.size()) +
                                               " bytes, which its dtype and shape do not give"};
    out[i] = &*view++;
  }
  if (view != views->end()) return mismatch(commit, "it has no tensor '" + view->name + "'");
  return out;
}

}  // namespace

Result<std::vector<TensorInfo>> Bucket::tensors(const Version& version) {
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, history_.schema(commit.schema));
  return schema->tensors;
}

Result<std::vector<std::string>> Bucket::digests(const Version& version) {
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, history_.schema(commit.schema));
  const std::vector<size_t> none;
  SILT_ASSIGN(const Base base,
              base_from_bucket(*this, commit, schema->tensors, /*prove=*/false,
                               {.memory_bytes = uint64_t{1} << 30, .here = &none}));
  std::vector<std::string> digests;
  for (size_t t = 0; t < schema->tensors.size(); ++t)
    digests.push_back(to_hex(base.sums[t] + base.chain->change(t)));
  return digests;
}

std::string tensor_digest(std::span<const std::byte> bytes) {
  return to_hex(digest_bytes(bytes, 0));
}

Result<LoadReport> Bucket::load(const Version& version, std::vector<MutTensorView> tensors,
                                const LoadOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, history_.schema(commit.schema));
  SILT_ASSIGN(const std::vector<const MutTensorView*> into,
              match(commit, schema->tensors, options.some, &tensors));
  Meter meter(options.progress, schema->total_bytes());
  SILT_ASSIGN(
      const ProvenVersion proven,
      rebuild_version(
          *this, commit, *schema,
          {.threads = options.threads, .memory_bytes = options.memory_bytes, .meter = &meter},
          [&into](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
            if (into[tensor] != nullptr)
              std::memcpy(into[tensor]->bytes.data() + offset, words.data(), words.size());
            return {};
          }));
  LoadReport report;
  report.version = commit.version();
  report.bytes_fetched = proven.fetched_bytes;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace siltstone
