#include "replica/memory_replica.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/diff.h"
#include "repo/base.h"
#include "repo/plan.h"
#include "repo/rebuild.h"

namespace siltstone {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The live tensors as a base.
class LiveBytes final : public StateBytes {
 public:
  explicit LiveBytes(const std::vector<MutTensorView>& views) : views_(views) {}
  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override {
    std::memcpy(out.data(), views_[tensor].bytes.data() + offset_bytes, out.size());
    return {};
  }
  ByteSpan resident(size_t tensor) const override { return views_[tensor].bytes; }

 private:
  const std::vector<MutTensorView>& views_;
};

// Words to be written into one block of a tensor.
struct Overwrite {
  size_t tensor = 0;
  uint64_t offset_bytes = 0;
  std::vector<uint16_t> positions;
  std::vector<uint64_t> run_ends;
  std::vector<std::byte> words;

  uint64_t memory_bytes() const {
    return positions.size() * sizeof(uint16_t) + words.size() + run_ends.size() * sizeof(uint64_t);
  }
};

template <class Word>
void scatter(const Overwrite& overwrite, std::byte* block) {
  const std::byte* word = overwrite.words.data();
  uint64_t begin = 0;
  for (size_t run = 0; run < overwrite.run_ends.size(); ++run) {
    std::byte* base = block + run * kRunElements * sizeof(Word);
    for (uint64_t i = begin; i < overwrite.run_ends[run]; ++i, word += sizeof(Word)) {
      std::memcpy(base + uint64_t{overwrite.positions[i]} * sizeof(Word), word, sizeof(Word));
    }
    begin = overwrite.run_ends[run];
  }
}

void write(const Overwrite& overwrite, unsigned word_bytes, std::byte* block) {
  switch (word_bytes) {
    case 1:
      return scatter<uint8_t>(overwrite, block);
    case 2:
      return scatter<uint16_t>(overwrite, block);
    case 4:
      return scatter<uint32_t>(overwrite, block);
    default:
      return scatter<uint64_t>(overwrite, block);
  }
}

}  // namespace

struct MemoryReplica::Change final : Staged {
  const Version& target() const override { return version; }
  uint64_t bytes_fetched() const override { return fetched; }
  uint64_t changed_elements() const override { return changed; }
  double seconds() const override { return elapsed; }

  Version version;
  std::vector<Overwrite> overwrites;
  std::vector<Sum128> sums;
  std::optional<WayBack> back;
  uint64_t fetched = 0;
  uint64_t changed = 0;
  uint64_t memory_bytes = 0;
  double elapsed = 0;
};

Result<std::unique_ptr<Replica>> MemoryReplica::adopt(std::vector<MutTensorView> tensors,
                                                      const Version& at) {
  auto replica = std::unique_ptr<MemoryReplica>(new MemoryReplica());
  std::sort(tensors.begin(), tensors.end(),
            [](const MutTensorView& x, const MutTensorView& y) { return x.name < y.name; });
  for (const MutTensorView& view : tensors) {
    const std::optional<uint64_t> size = tensor_size_bytes(view.dtype, view.shape);
    if (!size || *size != view.bytes.size()) {
      return Error{Code::kInvalidArgument, "tensor '" + view.name + "' has " +
                                               std::to_string(view.bytes.size()) +
                                               " bytes, which its dtype and shape do not give"};
    }
    if (view.device.kind != Device::kCpu) {
      return Error{Code::kUnsupported, "tensor '" + view.name + "' is not in host memory"};
    }
    if (!replica->tensors_.empty() && replica->tensors_.back().name == view.name) {
      return Error{Code::kInvalidArgument, "tensor '" + view.name + "' is given twice"};
    }
    replica->tensors_.push_back({view.name, view.dtype, view.shape, *size});
  }
  replica->views_ = std::move(tensors);
  const LiveBytes live(replica->views_);
  SILT_ASSIGN(replica->sums_, sum_all(replica->tensors_, live, 0));
  const std::string root = state_root(state_rows(replica->tensors_, replica->sums_));
  if (root != at.root) {
    return Error{Code::kMismatch, "the tensors do not hold " + at.id.name() + ": their root is " +
                                      root + ", expected " + at.root};
  }
  replica->version_ = at;
  return std::unique_ptr<Replica>(std::move(replica));
}

Result<std::unique_ptr<Staged>> MemoryReplica::stage(Repository& repository, const Version& target,
                                                     const StageOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Bucket& bucket = as_bucket(repository);
  SILT_ASSIGN(const Commit commit, bucket.history().read(target.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(commit.schema));
  if (schema->tensors != tensors_) {
    return Error{Code::kMismatch, commit.id.name() + " has other tensors than this replica"};
  }
  const LiveBytes live(views_);
  Meter meter(options.progress, schema->total_bytes());
  const BaseOptions base_options{.threads = options.threads,
                                 .memory_bytes = options.memory_bytes,
                                 .meter = &meter,
                                 .overlap = true};
  std::optional<Base> base;
  if (!options.repair) {
    KnownState known;
    known.bytes = std::make_unique<LiveBytes>(views_);
    known.sums = sums_;
    known.root = version_.root;
    known.back = back_;
    known.description = "the replica's " + version_.id.name();
    SILT_ASSIGN(base, base_from_known(bucket, commit, tensors_, std::move(known), base_options));
  }
  if (!base) {
    SILT_ASSIGN(base, base_from_bucket(bucket, commit, tensors_, /*prove=*/false, base_options));
  }
  auto change = std::make_unique<Change>();
  std::mutex mutex;
  const BlockSink compare = [&](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
    const ByteSpan was = live.resident(tensor).subspan(offset, words.size());
    if (words.data() == was.data()) return {};
    thread_local ChangeList list;
    list.clear(word_matrix(tensors_[tensor]).word_bytes);
    list.append(words, was);
    if (list.changed() == 0) return {};
    Overwrite overwrite{tensor,
                        offset,
                        {list.positions().begin(), list.positions().end()},
                        {list.run_ends().begin(), list.run_ends().end()},
                        {list.words().begin(), list.words().end()}};
    const std::lock_guard lock(mutex);
    change->changed += list.changed();
    change->memory_bytes += overwrite.memory_bytes();
    if (change->memory_bytes > options.memory_bytes) {
      return Error{Code::kUnsupported, "staging " + commit.id.name() + " needs more than " +
                                           format_bytes(options.memory_bytes) +
                                           " of memory; allow more"};
    }
    change->overwrites.push_back(std::move(overwrite));
    return {};
  };
  std::vector<size_t> all(tensors_.size());
  std::iota(all.begin(), all.end(), size_t{0});
  const StateReader reader = base->reader(tensors_);
  std::optional<WayBackWriter> way_back;
  if (wants_way_back(commit)) way_back.emplace(memory_for_way_back());
  // What `compare` gathers is dropped with the change if the anchor turns out to be damaged.
  SILT_ASSIGN(Rebuilt rebuilt, rebuild(reader, all,
                                       {.threads = options.threads,
                                        .memory_bytes = options.memory_bytes,
                                        .meter = &meter,
                                        .back = way_back ? &*way_back : nullptr,
                                        .anchor = base->anchor,
                                        .prove_anchor = base->anchor != nullptr},
                                       compare));
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (rebuilt.before[t] == base->sums[t]) continue;
    return Error{Code::kMismatch, base->description + ": tensor '" + tensors_[t].name +
                                      "' was changed; stage with repair to rebuild it"};
  }
  if (state_root(state_rows(tensors_, rebuilt.after)) != commit.root) {
    return Error{Code::kCorrupt, "what was staged is not " + commit.id.name()};
  }
  change->version = commit.version();
  change->sums = std::move(rebuilt.after);
  if (way_back) {
    Result<WayBack> way =
        way_back->finish(commit.root, commit.find(ArtifactKind::kDelta)->from_root);
    if (way) change->back = *std::move(way);
  }
  change->fetched = base->fetched_bytes;
  change->elapsed = seconds_since(start);
  return std::unique_ptr<Staged>(std::move(change));
}

CommitReport MemoryReplica::commit(std::unique_ptr<Staged> staged) {
  const auto start = std::chrono::steady_clock::now();
  auto& change = static_cast<Change&>(*staged);
  // Plain stores into memory that is known to be there: nothing here can fail half-way.
  CommitReport report;
  report.status = parallel_for(change.overwrites.size(), 0, [&](uint64_t i, unsigned) -> Status {
    const Overwrite& overwrite = change.overwrites[i];
    write(overwrite, word_matrix(tensors_[overwrite.tensor]).word_bytes,
          views_[overwrite.tensor].bytes.data() + overwrite.offset_bytes);
    return {};
  });
  sums_ = std::move(change.sums);
  version_ = change.version;
  back_ = std::move(change.back);
  report.outcome = Outcome::kApplied;
  report.version = version_;
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace siltstone
