#include "repo/anchor_pass.h"

#include <algorithm>
#include <new>

#include "base/try.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

// As long as a tile, so that small tensors share a request.
constexpr uint64_t kRunBytes = kTileBytes;

}  // namespace

Result<std::unique_ptr<AnchorPass>> AnchorPass::begin(const AnchorBytes& anchor,
                                                      const std::vector<Stretch>& stretches,
                                                      const Options& options) {
  std::unique_ptr<AnchorPass> pass(new AnchorPass(anchor, options));
  SILT_TRY(pass->cut(stretches));
  pass->start_reading();
  return pass;
}

AnchorPass::~AnchorPass() {
  stop();
}

// Runs by object, then all of them in turns.
Status AnchorPass::cut(const std::vector<Stretch>& stretches) {
  std::vector<Run> single;
  for (const Stretch& stretch : stretches) {
    if (stretch.length_bytes == 0) continue;
    const AnchorBytes::Place place = anchor_.place(stretch.tensor);
    single.push_back(
        {place.object, place.offset_bytes + stretch.offset_bytes, stretch.length_bytes, {stretch}});
  }
  std::ranges::sort(single, {},
                    [](const Run& run) { return std::pair(run.object, run.offset_bytes); });
  std::vector<std::vector<Run>> by_object(anchor_.objects().size());
  for (Run& run : single) {
    std::vector<Run>& runs = by_object[run.object];
    const bool joins = !runs.empty() &&
                       runs.back().offset_bytes + runs.back().length_bytes == run.offset_bytes &&
                       runs.back().length_bytes + run.length_bytes <= kRunBytes;
    if (joins) {
      runs.back().length_bytes += run.length_bytes;
      runs.back().stretches.push_back(run.stretches.front());
    } else {
      runs.push_back(std::move(run));
    }
    largest_ = std::max(largest_, runs.back().length_bytes);
  }
  if (options_.prove) SILT_TRY(start_hashes(by_object));
  struct Lane {
    size_t object;
    size_t next = 0;
  };
  std::vector<Lane> lanes;
  size_t waiting = 0;
  do {
    while (lanes.size() < std::max(1U, options_.workers) && waiting < by_object.size())
      lanes.push_back({waiting++});
    for (Lane& lane : lanes) {
      std::vector<Run>& runs = by_object[lane.object];
      if (lane.next < runs.size()) runs_.push_back(std::move(runs[lane.next++]));
    }
    std::erase_if(lanes,
                  [&](const Lane& lane) { return lane.next == by_object[lane.object].size(); });
  } while (!lanes.empty() || waiting < by_object.size());
  return {};
}

Status AnchorPass::start_hashes(const std::vector<std::vector<Run>>& by_object) {
  for (size_t i = 0; i < by_object.size(); ++i) {
    const ObjectRef& object = anchor_.objects()[i];
    uint64_t end = object.prefix_bytes;
    hashes_.push_back({anchor_.hash_of_header(i), end});
    for (const Run& run : by_object[i]) {
      if (run.offset_bytes != end) break;
      end += run.length_bytes;
    }
    if (end != object.length_bytes)
      return Error{Code::kCorrupt, "object '" + object.key + "' holds bytes that are no tensor's"};
    if (by_object[i].empty())
      SILT_TRY(check_sha256(object, to_hex(hashes_[i].sha256.finish())).in(anchor_.context()));
  }
  return {};
}

void AnchorPass::start_reading() {
  const StoreTraits traits = anchor_.store().traits();
  if (traits.local) {
    buffers_.resize(std::max(1U, options_.workers));
    return;
  }
  const uint64_t fit =
      std::max<uint64_t>(1, options_.memory_bytes / std::max<uint64_t>(1, largest_));
  // One for each request, and those that workers are busy with.
  const uint64_t requests = std::max(1U, traits.transfers);
  const uint64_t slots = std::min<uint64_t>({requests + options_.workers, fit, runs_.size()});
  slots_.resize(slots);
  for (size_t i = 0; i < slots; ++i) slots_[i].number = i;
  for (size_t i = 0; i < std::min(requests, slots); ++i)
    pool_.emplace_back([this] { read_ahead(); });
}

Status AnchorPass::fetch(const Run& run, std::vector<std::byte>* bytes) const {
  bytes->resize(run.length_bytes);
  Status read = anchor_.store().read(anchor_.objects()[run.object].key, run.offset_bytes, *bytes);
  if (!read) return promised(std::move(read).error()).in(anchor_.context());
  return {};
}

void AnchorPass::read_ahead() {
  std::unique_lock lock(mutex_);
  while (!stopped_ && next_ < runs_.size()) {
    const size_t number = next_++;
    Slot& slot = slots_[number % slots_.size()];
    moved_.wait(lock, [&] { return stopped_ || slot.number == number; });
    if (stopped_) return;
    lock.unlock();
    Status status;
    try {
      status = fetch(runs_[number], &slot.bytes);
    } catch (const std::bad_alloc&) {
      status = Error{Code::kIo, "there is no memory left to read an anchor"};
    }
    lock.lock();
    slot.status = std::move(status);
    slot.ready = true;
    moved_.notify_all();
  }
}

Result<std::optional<ByteSpan>> AnchorPass::read(size_t number, unsigned worker) {
  const Run& run = runs_[number];
  ByteSpan bytes;
  if (slots_.empty()) {
    SILT_TRY(fetch(run, &buffers_[worker]));
    bytes = buffers_[worker];
  } else {
    Slot& slot = slots_[number % slots_.size()];
    std::unique_lock lock(mutex_);
    moved_.wait(lock, [&] { return stopped_ || (slot.number == number && slot.ready); });
    if (stopped_) return std::optional<ByteSpan>();
    SILT_TRY(slot.status);
    bytes = slot.bytes;
  }
  if (options_.prove) {
    SILT_ASSIGN(const bool hashed, hash(run, bytes));
    if (!hashed) return std::optional<ByteSpan>();
  }
  return std::optional<ByteSpan>(bytes);
}

// Waits for the run before it in the object, which somebody has: runs are asked for in order.
// Whether it came to that.
Result<bool> AnchorPass::hash(const Run& run, ByteSpan bytes) {
  const ObjectRef& object = anchor_.objects()[run.object];
  Hash& hash = hashes_[run.object];
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [&] { return stopped_ || hash.next_bytes == run.offset_bytes; });
  if (stopped_) return false;
  lock.unlock();
  hash.sha256.update(bytes);
  lock.lock();
  hash.next_bytes += run.length_bytes;
  moved_.notify_all();
  if (hash.next_bytes < object.length_bytes) return true;
  SILT_TRY(check_sha256(object, to_hex(hash.sha256.finish())).in(anchor_.context()));
  return true;
}

void AnchorPass::release(size_t number) {
  if (slots_.empty()) return;
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[number % slots_.size()];
  slot.ready = false;
  slot.number += slots_.size();
  moved_.notify_all();
}

void AnchorPass::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  moved_.notify_all();
}

}  // namespace siltstone
