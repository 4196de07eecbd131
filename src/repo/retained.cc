#include "repo/retained.h"

#include <algorithm>
#include <atomic>

#include "base/arena.h"
#include "base/parallel.h"
#include "delta/diff.h"

namespace siltstone {

struct RetainedBase::State {
  std::optional<VersionId> id;  // empty: the words are not those of any version
  std::string root;
  std::vector<TensorInfo> tensors;
  std::vector<Sum128> sums;
  std::vector<uint64_t> offsets;  // in the arena
  std::optional<WayBack> back;
  Arena arena;

  MutByteSpan words(size_t tensor) const {
    return arena.bytes().subspan(offsets[tensor], tensors[tensor].size_bytes);
  }
};

RetainedBase::RetainedBase() : state_(std::make_unique<State>()) {}
RetainedBase::~RetainedBase() = default;
RetainedBase::RetainedBase(RetainedBase&&) noexcept = default;
RetainedBase& RetainedBase::operator=(RetainedBase&&) noexcept = default;

const std::optional<VersionId>& RetainedBase::version() const {
  return state_->id;
}

std::span<const std::byte> RetainedBase::bytes(std::string_view tensor) const {
  if (!state_->id) return {};
  for (size_t t = 0; t < state_->tensors.size(); ++t) {
    if (state_->tensors[t].name == tensor) return state_->words(t);
  }
  return {};
}

namespace {

// Borrows the arena of a RetainedBase.
class RetainedBytes final : public StateBytes {
 public:
  explicit RetainedBytes(std::vector<ByteSpan> tensors) : tensors_(std::move(tensors)) {}
  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override {
    std::memcpy(out.data(), tensors_[tensor].data() + offset_bytes, out.size());
    return {};
  }
  ByteSpan resident(size_t tensor) const override { return tensors_[tensor]; }

 private:
  std::vector<ByteSpan> tensors_;
};

void lay_out(std::span<const TensorInfo> tensors, RetainedBase::State* state) {
  constexpr uint64_t kAlignment = 64;
  state->tensors.assign(tensors.begin(), tensors.end());
  state->offsets.clear();
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors) {
    state->offsets.push_back(total);
    total += align_up(tensor.size_bytes, kAlignment);
  }
  state->arena = Arena(total);
}

// Makes one stretch equal to `next` and returns its sum; kept lines are not written.
Result<Sum128> refresh(const StateBytes& next, const Stretch& stretch, unsigned word_bytes,
                       MutByteSpan target, std::vector<std::byte>* scratch, ChangeList* changes) {
  changes->clear(word_bytes);
  if (const ByteSpan masters = next.masters(stretch.tensor); !masters.empty()) {
    changes->append_cast_refresh(
        masters.subspan(2 * stretch.offset_bytes, 2 * stretch.length_bytes), target);
    return digest_bytes(target, stretch.offset_bytes);
  }
  ByteSpan words = next.resident(stretch.tensor);
  if (words.empty()) {
    scratch->resize(stretch.length_bytes);
    Status read = next.read(stretch.tensor, stretch.offset_bytes, *scratch);
    if (!read) return std::move(read).error();
    words = *scratch;
  } else {
    words = words.subspan(stretch.offset_bytes, stretch.length_bytes);
  }
  changes->append_refresh(words, target);
  return digest_bytes(target, stretch.offset_bytes);
}

}  // namespace

KnownState retained_state(const RetainedBase& retained) {
  const RetainedBase::State& state = retained.state();
  KnownState known;
  if (!state.id) return known;
  std::vector<ByteSpan> tensors;
  for (size_t t = 0; t < state.tensors.size(); ++t) tensors.push_back(state.words(t));
  known.bytes = std::make_unique<RetainedBytes>(std::move(tensors));
  known.sums = state.sums;
  known.root = state.root;
  known.back = state.back;
  known.description = "the retained " + state.id->name();
  return known;
}

void promote(RetainedBase& retained, std::span<const TensorInfo> tensors, const StateBytes& next,
             const std::vector<Sum128>& sums, const VersionId& id, const std::string& root,
             std::optional<WayBack> back, unsigned threads) {
  RetainedBase::State& state = retained.state();
  state.back.reset();
  if (!std::equal(tensors.begin(), tensors.end(), state.tensors.begin(), state.tensors.end())) {
    lay_out(tensors, &state);
  }
  state.id.reset();
  const StateReader reader(tensors, next, nullptr);
  std::vector<Stretch> work;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const Result<std::vector<Stretch>> stretches = reader.stretches(t, UINT64_MAX);
    if (!stretches) return;
    work.insert(work.end(), stretches->begin(), stretches->end());
  }
  SumTable found(tensors.size());
  const Status done = parallel_for(work.size(), threads, [&](uint64_t i, unsigned) -> Status {
    thread_local std::vector<std::byte> scratch;
    thread_local ChangeList changes;
    const Stretch& stretch = work[i];
    const unsigned word_bytes = word_matrix(tensors[stretch.tensor]).word_bytes;
    const MutByteSpan target =
        state.words(stretch.tensor).subspan(stretch.offset_bytes, stretch.length_bytes);
    Result<Sum128> sum = refresh(next, stretch, word_bytes, target, &scratch, &changes);
    if (!sum) return std::move(sum).error();
    found.add(stretch.tensor, *sum);
    return {};
  });
  if (!done) return;
  // The caller's tensors may have moved on since they were compared: then this is no version's
  // state and the next publish reads its base elsewhere.
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (found[t] != sums[t]) return;
  }
  state.sums = sums;
  state.root = root;
  state.back = std::move(back);
  state.id = id;
}

}  // namespace siltstone
