#include "replica/memory_replica.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/diff.h"
#include "replica/changes.h"
#include "replica/overwrite.h"
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
  explicit LiveBytes(const std::vector<Placement>& places) : places_(places) {}
  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override {
    places_[tensor].gather(offset_bytes, out);
    return {};
  }
  ByteSpan resident(size_t tensor) const override { return places_[tensor].resident(); }

 private:
  const std::vector<Placement>& places_;
};

// The tensors as whole slots.
std::vector<Slot> slots_of(const std::vector<MutTensorView>& views) {
  std::vector<Slot> slots;
  for (const MutTensorView& view : views) {
    SlotTile all;
    all.columns = view.bytes.size() / dtype_info(view.dtype).word_bytes;
    slots.push_back({view.name, view.bytes, {}});
    if (all.columns > 0) slots.back().tiles.push_back(all);
  }
  return slots;
}

}  // namespace

struct MemoryReplica::Change final : Staged {
  Change(const MemoryReplica& of, Version target, uint64_t limit_bytes)
      : replica(of), version(std::move(target)), overwrites(limit_bytes) {}
  const Version& target() const override { return version; }
  uint64_t bytes_fetched() const override { return fetched; }
  uint64_t changed_elements() const override { return changed; }
  double seconds() const override { return elapsed; }
  std::vector<std::string> digests() const override {
    std::vector<std::string> out;
    for (const Sum128& sum : sums) out.push_back(to_hex(sum));
    return out;
  }
  Result<std::vector<std::byte>> changes() const override {
    return pack_changes({replica.version_.root, version.root}, overwrites.all(), replica.places_);
  }

  const MemoryReplica& replica;
  const Version version;
  Overwrites overwrites;
  std::vector<Sum128> sums;
  std::optional<WayBack> back;
  uint64_t fetched = 0;
  std::atomic<uint64_t> changed = 0;
  double elapsed = 0;
};

Result<std::unique_ptr<Replica>> MemoryReplica::adopt(std::vector<MutTensorView> tensors,
                                                      const Version& at) {
  std::vector<TensorInfo> infos;
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
    infos.push_back({view.name, view.dtype, view.shape, *size});
  }
  return adopt(std::move(infos), slots_of(tensors), at, nullptr);
}

Result<std::unique_ptr<Replica>> MemoryReplica::adopt(std::vector<TensorInfo> tensors,
                                                      std::vector<Slot> slots, const Version& at,
                                                      const std::vector<Sum128>* elsewhere) {
  auto replica = std::unique_ptr<MemoryReplica>(new MemoryReplica());
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  std::ranges::stable_sort(slots, {}, &Slot::tensor);
  auto slot = slots.begin();
  const auto unknown = [&] {
    return Error{Code::kMismatch,
                 at.id.name() + " has no tensor '" + slot->tensor + "', which has a slot"};
  };
  for (size_t t = 0; t < tensors.size(); ++t) {
    const TensorInfo& info = tensors[t];
    if (t > 0 && tensors[t - 1].name == info.name)
      return Error{Code::kInvalidArgument, "tensor '" + info.name + "' is given twice"};
    if (slot != slots.end() && slot->tensor < info.name) return unknown();
    const bool here = elsewhere == nullptr || (slot != slots.end() && slot->tensor == info.name);
    if (here) replica->here_.push_back(t);
    std::vector<Placement::Part> parts;
    for (; slot != slots.end() && slot->tensor == info.name; ++slot) {
      for (const SlotTile& tile : slot->tiles) parts.push_back({tile, slot->destination});
    }
    SILT_ASSIGN(Placement place, Placement::make(info, std::move(parts), !here));
    replica->places_.push_back(std::move(place));
  }
  if (slot != slots.end()) return unknown();
  SILT_ASSIGN(replica->ties_, find_ties(replica->places_));
  replica->tensors_ = std::move(tensors);
  SILT_TRY(replica->find_sums(at, elsewhere));
  return std::unique_ptr<Replica>(std::move(replica));
}

Status MemoryReplica::find_sums(const Version& at, const std::vector<Sum128>* elsewhere) {
  const LiveBytes live(places_);
  const BlockSink agree = [&](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
    if (!places_[tensor].resident().empty() || places_[tensor].holds(offset, words)) return {};
    return Error{Code::kMismatch,
                 "the places of tensor '" + tensors_[tensor].name + "' hold different words"};
  };
  SILT_ASSIGN(Rebuilt found, rebuild(StateReader(tensors_, live, nullptr), here_, {}, agree));
  sums_ = std::move(found.after);
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (!is_here(t)) sums_[t] = (*elsewhere)[t];
  }
  const std::string root = state_root(state_rows(tensors_, sums_));
  if (root != at.root) {
    return Error{Code::kMismatch, "the tensors do not hold " + at.id.name() + ": their root is " +
                                      root + ", expected " + at.root};
  }
  version_ = at;
  return {};
}

// What is one memory here must be the same in the version.
Status MemoryReplica::check_ties(const std::vector<Sum128>& sums, const Version& target) const {
  for (size_t t = 0; t < ties_.size(); ++t) {
    if (sums[t] == sums[ties_[t]]) continue;
    return Error{Code::kMismatch, "tensors '" + tensors_[ties_[t]].name + "' and '" +
                                      tensors_[t].name + "' are one memory here and differ in " +
                                      target.id.name()};
  }
  return {};
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
  const LiveBytes live(places_);
  Meter meter(options.progress, schema->total_bytes());
  const BaseOptions base_options{.threads = options.threads,
                                 .memory_bytes = options.memory_bytes,
                                 .meter = &meter,
                                 .overlap = true,
                                 .here = shares() ? &here_ : nullptr};
  std::optional<Base> base;
  if (!options.repair) {
    KnownState known;
    known.bytes = std::make_unique<LiveBytes>(places_);
    known.sums = sums_;
    known.root = version_.root;
    known.back = back_;
    known.description = "the replica's " + version_.id.name();
    SILT_ASSIGN(base, base_from_known(bucket, commit, tensors_, std::move(known), base_options));
  }
  if (!base) {
    SILT_ASSIGN(base, base_from_bucket(bucket, commit, tensors_, shares(), base_options));
  }
  auto change = std::make_unique<Change>(*this, commit.version(), options.memory_bytes);
  const BlockSink compare = [&](size_t tensor, uint64_t offset, ByteSpan words, bool) -> Status {
    thread_local std::vector<std::byte> gathered;
    thread_local ChangeList list;
    const Placement& place = places_[tensor];
    ByteSpan was = place.resident();
    if (was.empty()) {
      gathered.resize(words.size());
      place.gather(offset, gathered);
      was = gathered;
    } else {
      was = was.subspan(offset, words.size());
      if (words.data() == was.data()) return {};
    }
    list.clear(place.word_bytes());
    list.append(words, was);
    change->changed += list.changed();
    if (ties_[tensor] != tensor) return {};  // written under the first name
    return change->overwrites.add(place, {offset, list.positions(), list.run_ends(), list.words()});
  };
  const StateReader reader = base->reader(tensors_);
  std::optional<WayBackWriter> way_back;
  if (wants_way_back(commit)) way_back.emplace(memory_for_way_back());
  // What `compare` gathers is dropped with the change if the anchor turns out to be damaged.
  SILT_ASSIGN(Rebuilt rebuilt, rebuild(reader, here_,
                                       {.threads = options.threads,
                                        .memory_bytes = options.memory_bytes,
                                        .meter = &meter,
                                        .back = way_back ? &*way_back : nullptr,
                                        .anchor = base->anchor,
                                        .prove_anchor = base->anchor != nullptr && !shares()},
                                       compare));
  for (const size_t t : here_) {
    if (rebuilt.before[t] == base->sums[t]) continue;
    return Error{Code::kMismatch, base->description + ": tensor '" + tensors_[t].name +
                                      "' was changed; stage with repair to rebuild it"};
  }
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (!is_here(t)) rebuilt.after[t] = base->sums[t] + base->chain->change(t);
  }
  if (state_root(state_rows(tensors_, rebuilt.after)) != commit.root) {
    return Error{Code::kCorrupt, "what was staged is not " + commit.id.name()};
  }
  SILT_TRY(check_ties(rebuilt.after, commit.version()));
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
  CommitReport report;
  change.overwrites.write();
  sums_ = std::move(change.sums);
  version_ = change.version;
  back_ = std::move(change.back);
  report.outcome = Outcome::kApplied;
  report.version = version_;
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace siltstone
