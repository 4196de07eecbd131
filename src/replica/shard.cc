// One rank's parts of tensors, moved by what a replica of the whole tensors has staged.
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/grid.h"
#include "replica/changes.h"
#include "replica/overwrite.h"
#include "replica/placement.h"
#include "siltstone/replica.h"

namespace siltstone {
namespace {

constexpr uint64_t kCompareBytes = uint64_t{1} << 20;

struct Change final : Staged {
  Change(Version target, uint64_t limit_bytes)
      : version(std::move(target)), overwrites(limit_bytes) {}
  const Version& target() const override { return version; }
  uint64_t bytes_fetched() const override { return 0; }
  uint64_t changed_elements() const override { return changed; }
  double seconds() const override { return elapsed; }

  const Version version;
  Overwrites overwrites;
  uint64_t changed = 0;
  double elapsed = 0;
};

class MemoryShard final : public Shard {
 public:
  static Result<std::unique_ptr<Shard>> adopt(const std::vector<TensorInfo>& tensors,
                                              const std::vector<MutTensorView>& copy,
                                              std::vector<Slot> slots, const Version& at);

  const Version& version() const override { return version_; }
  Result<std::unique_ptr<Staged>> stage(ByteSpan changes, const Version& target,
                                        const StageOptions& options) override;
  CommitReport commit(std::unique_ptr<Staged> staged) override;

 private:
  Status add(TensorInfo tensor, ByteSpan copy, std::vector<Placement::Part> parts);
  Status compare(unsigned threads) const;
  uint64_t words(size_t tensor) const {
    return tensors_[tensor].size_bytes / places_[tensor].word_bytes();
  }

  std::vector<TensorInfo> tensors_;  // sorted by name
  std::vector<Placement> places_;    // theirs; of some no part
  std::vector<ByteSpan> copies_;     // theirs
  Version version_;
};

Result<std::unique_ptr<Shard>> MemoryShard::adopt(const std::vector<TensorInfo>& tensors,
                                                  const std::vector<MutTensorView>& copy,
                                                  std::vector<Slot> slots, const Version& at) {
  auto shard = std::make_unique<MemoryShard>();
  shard->version_ = at;
  std::map<std::string_view, ByteSpan> whole;
  for (const MutTensorView& view : copy) whole.emplace(view.name, view.bytes);
  std::ranges::stable_sort(slots, {}, &Slot::tensor);
  auto slot = slots.begin();
  for (const TensorInfo& tensor : tensors) {
    std::vector<Placement::Part> parts;
    for (; slot != slots.end() && slot->tensor == tensor.name; ++slot) {
      for (const SlotTile& tile : slot->tiles) parts.push_back({tile, slot->destination});
    }
    SILT_TRY(shard->add(tensor, whole[tensor.name], std::move(parts)));
  }
  if (slot != slots.end())
    return Error{Code::kMismatch,
                 at.id.name() + " has no tensor '" + slot->tensor + "', which has a slot"};
  SILT_ASSIGN(const std::vector<size_t> ties, find_ties(shard->places_));
  for (size_t t = 0; t < ties.size(); ++t) {
    if (ties[t] != t)
      return Error{Code::kInvalidArgument, "tensors '" + tensors[ties[t]].name + "' and '" +
                                               tensors[t].name +
                                               "' are one memory: give one of "
                                               "them slots"};
  }
  SILT_TRY(shard->compare(0));
  return std::unique_ptr<Shard>(std::move(shard));
}

Status MemoryShard::add(TensorInfo tensor, ByteSpan copy, std::vector<Placement::Part> parts) {
  if (!parts.empty() && copy.size() != tensor.size_bytes)
    return Error{Code::kInvalidArgument, "the copy of tensor '" + tensor.name + "' has " +
                                             std::to_string(copy.size()) + " bytes, expected " +
                                             std::to_string(tensor.size_bytes)};
  SILT_ASSIGN(Placement place, Placement::make(tensor, std::move(parts), /*share=*/true));
  tensors_.push_back(std::move(tensor));
  places_.push_back(std::move(place));
  copies_.push_back(copy);
  return {};
}

// Every element that is here with the copy's.
Status MemoryShard::compare(unsigned threads) const {
  struct Piece {
    size_t tensor;
    uint64_t offset_bytes;
  };
  std::vector<Piece> pieces;
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (places_[t].parts().empty()) continue;
    for (uint64_t at = 0; at < copies_[t].size(); at += kCompareBytes) pieces.push_back({t, at});
  }
  return parallel_for(pieces.size(), threads, [&](uint64_t i, unsigned) -> Status {
    const auto [t, begin] = pieces[i];
    const uint64_t length = std::min<uint64_t>(kCompareBytes, copies_[t].size() - begin);
    if (places_[t].holds(begin, copies_[t].subspan(begin, length))) return {};
    return Error{Code::kMismatch, "tensor '" + tensors_[t].name + "' does not hold " +
                                      version_.id.name() +
                                      " here: it was rearranged after loading, or written to"};
  });
}

Result<std::unique_ptr<Staged>> MemoryShard::stage(ByteSpan changes, const Version& target,
                                                   const StageOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  SILT_ASSIGN(const PackedChanges packed, PackedChanges::open(changes));
  if (packed.roots().from != version_.root || packed.roots().to != target.root)
    return Error{Code::kMismatch, "these changes do not lead from " + version_.id.name() + " to " +
                                      target.id.name()};
  SILT_TRY(compare(options.threads));
  auto change = std::make_unique<Change>(target, options.memory_bytes);
  SILT_TRY(parallel_for(packed.size(), options.threads, [&](uint64_t i, unsigned) -> Status {
    thread_local PackedChanges::Scratch scratch;
    const size_t tensor = packed.tensor(i);
    if (tensor >= places_.size()) return Error{Code::kCorrupt, "a change of no tensor"};
    const Placement& place = places_[tensor];
    SILT_ASSIGN(const StretchChanges found,
                packed.read(i, place.word_bytes(), words(tensor), &scratch));
    return change->overwrites.add(place, found);
  }));
  for (const Overwrite& overwrite : change->overwrites.all())
    change->changed += overwrite.words.size() / overwrite.word_bytes;
  change->elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::unique_ptr<Staged>(std::move(change));
}

CommitReport MemoryShard::commit(std::unique_ptr<Staged> staged) {
  const auto start = std::chrono::steady_clock::now();
  const auto& change = static_cast<const Change&>(*staged);
  change.overwrites.write();
  version_ = change.version;
  CommitReport report;
  report.outcome = Outcome::kApplied;
  report.version = version_;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace

Result<std::unique_ptr<Shard>> Shard::adopt(Repository& repository,
                                            const std::vector<MutTensorView>& copy,
                                            std::vector<Slot> slots, const Version& at) {
  SILT_ASSIGN(const std::vector<TensorInfo> tensors, repository.tensors(at));
  return MemoryShard::adopt(tensors, copy, std::move(slots), at);
}

}  // namespace siltstone
