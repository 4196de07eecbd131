#include "replica/overwrite.h"

#include <algorithm>
#include <iterator>

#include "base/parallel.h"
#include "siltstone/codec.h"

namespace siltstone {
namespace {

template <class Word>
void scatter_runs(const Overwrite& overwrite) {
  const std::byte* word = overwrite.words.data();
  uint64_t begin = 0;
  for (size_t run = 0; run < overwrite.run_ends.size(); ++run) {
    std::byte* base = overwrite.base + run * kRunElements * sizeof(Word);
    for (uint64_t i = begin; i < overwrite.run_ends[run]; ++i, word += sizeof(Word)) {
      std::memcpy(base + uint64_t{overwrite.positions[i]} * sizeof(Word), word, sizeof(Word));
    }
    begin = overwrite.run_ends[run];
  }
}

template <class Word>
void scatter_offsets(const Overwrite& overwrite) {
  const std::byte* word = overwrite.words.data();
  for (const uint32_t offset : overwrite.offsets) {
    std::memcpy(overwrite.base + uint64_t{offset} * sizeof(Word), word, sizeof(Word));
    word += sizeof(Word);
  }
}

template <class Word>
void scatter(const Overwrite& overwrite) {
  if (overwrite.offsets.empty()) return scatter_runs<Word>(overwrite);
  scatter_offsets<Word>(overwrite);
}

// Overwrites by offsets, made as places come: each of one destination, within 2^32 words.
class Offsets {
 public:
  Offsets(std::vector<Overwrite>* out, unsigned word_bytes)
      : out_(out), word_bytes_(word_bytes), first_(out->size()), last_(first_) {}

  void add(const Placement::Part& part, uint64_t place, const std::byte* word) {
    constexpr uint64_t kWindow = uint64_t{1} << 32;
    const uint64_t within = place % kWindow;
    Overwrite& into = find(part.destination.data() + (place - within) * word_bytes_);
    into.offsets.push_back(static_cast<uint32_t>(within));
    into.words.insert(into.words.end(), word, word + word_bytes_);
  }

 private:
  Overwrite& find(std::byte* base) {
    if (last_ < out_->size() && (*out_)[last_].base == base) return (*out_)[last_];
    for (last_ = first_; last_ < out_->size(); ++last_) {
      if ((*out_)[last_].base == base) return (*out_)[last_];
    }
    return out_->emplace_back(Overwrite{base, word_bytes_, {}, {}, {}, {}});
  }

  std::vector<Overwrite>* out_;
  const unsigned word_bytes_;
  const size_t first_;
  size_t last_;
};

}  // namespace

uint64_t Overwrite::memory_bytes() const {
  return sizeof(*this) + positions.size() * sizeof(uint16_t) + run_ends.size() * sizeof(uint64_t) +
         offsets.size() * sizeof(uint32_t) + words.size();
}

void Overwrite::write() const {
  switch (word_bytes) {
    case 1:
      return scatter<uint8_t>(*this);
    case 2:
      return scatter<uint16_t>(*this);
    case 4:
      return scatter<uint32_t>(*this);
    default:
      return scatter<uint64_t>(*this);
  }
}

namespace {

std::vector<Overwrite> find_overwrites(const Placement& placement, const StretchChanges& changes) {
  std::vector<Overwrite> out;
  if (changes.positions.empty()) return out;
  const unsigned word_bytes = placement.word_bytes();
  if (!placement.resident().empty()) {
    out.push_back({placement.resident().data() + changes.offset_bytes,
                   word_bytes,
                   {changes.positions.begin(), changes.positions.end()},
                   {changes.run_ends.begin(), changes.run_ends.end()},
                   {},
                   {changes.words.begin(), changes.words.end()}});
    return out;
  }
  Offsets offsets(&out, word_bytes);
  const std::byte* word = changes.words.data();
  uint64_t begin = 0;
  for (size_t run = 0; run < changes.run_ends.size(); ++run) {
    const uint64_t first = changes.offset_bytes / word_bytes + run * kRunElements;
    const std::vector<const Placement::Part*> parts =
        placement.parts_within(first, first + kRunElements);
    for (uint64_t i = begin; i < changes.run_ends[run]; ++i, word += word_bytes) {
      for (const Placement::Part* part : parts) {
        const auto place = Placement::place_in(part->tile, first + changes.positions[i]);
        if (place) offsets.add(*part, *place, word);
      }
    }
    begin = changes.run_ends[run];
  }
  return out;
}

}  // namespace

Status Overwrites::add(const Placement& placement, const StretchChanges& changes) {
  std::vector<Overwrite> found = find_overwrites(placement, changes);
  uint64_t memory_bytes = 0;
  for (const Overwrite& overwrite : found) memory_bytes += overwrite.memory_bytes();
  const std::lock_guard lock(mutex_);
  memory_bytes_ += memory_bytes;
  if (memory_bytes_ > limit_bytes_)
    return Error{Code::kUnsupported, "the change needs more than " + format_bytes(limit_bytes_) +
                                         " of memory; allow more"};
  std::ranges::move(found, std::back_inserter(all_));
  return {};
}

void Overwrites::write() const {
  (void)parallel_for(all_.size(), 0, [this](uint64_t i, unsigned) -> Status {
    all_[i].write();
    return {};
  });
}

}  // namespace siltstone
