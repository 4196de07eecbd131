#include "repo/anchor.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/checksum.h"
#include "base/parallel.h"
#include "base/try.h"
#include "repo/objects.h"
#include "repo/progress.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

constexpr std::string_view kSumsKey = "siltstone.sums";
constexpr uint64_t kAlignment = 64;
// Of one object that is written to a store behind a network: what the store reads of its source at
// once, and what it has of that on the way.
constexpr uint64_t kUploadBytes = uint64_t{16} << 20;

// One anchor object: a run of tensors, wide dtypes first so that words stay aligned in the file.
struct Shard {
  std::vector<size_t> tensors;
  std::string prefix;
  uint64_t size_bytes = 0;
};

std::vector<Shard> cut_shards(std::span<const TensorInfo> tensors, uint64_t object_bytes) {
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&tensors](size_t x, size_t y) {
    return dtype_info(tensors[x].dtype).word_bytes > dtype_info(tensors[y].dtype).word_bytes;
  });
  std::vector<Shard> shards(1);
  uint64_t filled = 0;
  for (const size_t tensor : order) {
    const uint64_t size = tensors[tensor].size_bytes;
    if (filled > 0 && size > object_bytes - std::min(filled, object_bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().tensors.push_back(tensor);
    filled += size;
  }
  return shards;
}

void make_prefix(std::span<const TensorInfo> tensors, const std::vector<Sum128>& sums,
                 const std::string& root, Shard* shard) {
  std::vector<TensorInfo> infos;
  std::string sum_text;
  uint64_t data_bytes = 0;
  for (const size_t tensor : shard->tensors) {
    infos.push_back(tensors[tensor]);
    sum_text += to_hex(sums[tensor]);
    data_bytes += tensors[tensor].size_bytes;
  }
  shard->prefix = make_safetensors_prefix(infos,
                                          {{"format", "pt"},
                                           {"siltstone.format", "1"},
                                           {"siltstone.kind", "anchor"},
                                           {"siltstone.root", root},
                                           {std::string(kSumsKey), sum_text}},
                                          kAlignment);
  shard->size_bytes = shard->prefix.size() + data_bytes;
}

// Sum of a tensor that arrives in pieces of any length.
class RunningSum {
 public:
  void update(ByteSpan bytes) {
    if (carried_ > 0) {
      const size_t take = std::min(sizeof carry_ - carried_, bytes.size());
      std::memcpy(carry_ + carried_, bytes.data(), take);
      carried_ += take;
      bytes = bytes.subspan(take);
      if (carried_ < sizeof carry_) return;
      flush();
    }
    const size_t whole = bytes.size() & ~size_t{7};
    sum_ += digest_bytes(bytes.first(whole), offset_);
    offset_ += whole;
    carried_ = bytes.size() - whole;
    if (carried_ > 0) std::memcpy(carry_, bytes.data() + whole, carried_);
  }

  Sum128 finish() {
    if (carried_ > 0) flush();
    return sum_;
  }

 private:
  void flush() {
    sum_ += digest_bytes(ByteSpan(carry_, carried_), offset_);
    offset_ += carried_;
    carried_ = 0;
  }

  Sum128 sum_;
  uint64_t offset_ = 0;
  std::byte carry_[8];
  size_t carried_ = 0;
};

// A shard's bytes. While a store reads it from front to back, SHA-256 and sums are taken on the
// way.
class ShardSource final : public ByteSource {
 public:
  ShardSource(const Shard& shard, std::span<const TensorInfo> tensors, const StateBytes& bytes,
              std::function<Status(uint64_t)> progress)
      : shard_(shard), tensors_(tensors), bytes_(bytes), progress_(std::move(progress)) {
    restart();
  }

  uint64_t size_bytes() const override { return shard_.size_bytes; }

  Status read(uint64_t offset_bytes, MutByteSpan out) const override {
    SILT_TRY(fill(offset_bytes, out));
    if (offset_bytes == 0) restart();
    if (offset_bytes != seen_) return {};
    take(offset_bytes, out);
    return progress_(out.size());
  }

  // SHA-256 and sums of the whole shard, reading it once more if the store did not read it in
  // order.
  Result<std::string> finish(std::vector<Sum128>* sums) {
    if (seen_ != shard_.size_bytes) {
      std::vector<std::byte> piece(uint64_t{4} << 20);
      uint64_t offset = 0;
      do {
        const uint64_t count = std::min<uint64_t>(piece.size(), shard_.size_bytes - offset);
        SILT_TRY(read(offset, MutByteSpan(piece).first(count)));
        offset += count;
      } while (offset < shard_.size_bytes);
    }
    for (RunningSum& sum : sums_) sums->push_back(sum.finish());
    return to_hex(sha_.finish());
  }

 private:
  void restart() const {
    sha_ = Sha256();
    sums_.assign(shard_.tensors.size(), RunningSum());
    seen_ = 0;
  }

  // Calls body(index in the shard, offset in the tensor, part of out) for the tensors in a range.
  template <class Body>
  Status for_tensors(uint64_t offset_bytes, uint64_t length, const Body& body) const {
    uint64_t begin = shard_.prefix.size();
    const uint64_t end = offset_bytes + length;
    for (size_t i = 0; i < shard_.tensors.size() && begin < end; ++i) {
      const uint64_t size = tensors_[shard_.tensors[i]].size_bytes;
      const uint64_t from = std::max(begin, offset_bytes);
      const uint64_t to = std::min(begin + size, end);
      if (from < to) SILT_TRY(body(i, from - begin, from - offset_bytes, to - from));
      begin += size;
    }
    return {};
  }

  Status fill(uint64_t offset_bytes, MutByteSpan out) const {
    if (offset_bytes < shard_.prefix.size()) {
      const size_t count = std::min<size_t>(out.size(), shard_.prefix.size() - offset_bytes);
      std::memcpy(out.data(), shard_.prefix.data() + offset_bytes, count);
    }
    return for_tensors(offset_bytes, out.size(),
                       [&](size_t i, uint64_t at, uint64_t into, uint64_t count) {
                         return bytes_.read(shard_.tensors[i], at, out.subspan(into, count));
                       });
  }

  void take(uint64_t offset_bytes, ByteSpan bytes) const {
    sha_.update(bytes);
    seen_ += bytes.size();
    (void)for_tensors(offset_bytes, bytes.size(),
                      [&](size_t i, uint64_t, uint64_t into, uint64_t count) -> Status {
                        sums_[i].update(bytes.subspan(into, count));
                        return {};
                      });
  }

  const Shard& shard_;
  std::span<const TensorInfo> tensors_;
  const StateBytes& bytes_;
  std::function<Status(uint64_t)> progress_;
  mutable Sha256 sha_;
  mutable std::vector<RunningSum> sums_;
  mutable uint64_t seen_ = 0;
};

Error changed_meanwhile(const TensorInfo& tensor) {
  return {Code::kConflict, "tensor '" + tensor.name +
                               "' was changed while it was being published; publish when the "
                               "checkpoint is written to its end"};
}

Result<ObjectRef> write_shard(Store& store, const Shard& shard, size_t number,
                              std::span<const TensorInfo> tensors, const StateBytes& bytes,
                              const std::vector<Sum128>& sums, const AnchorOptions& options,
                              const std::function<Status(uint64_t)>& progress) {
  if (shard.size_bytes > kMaxObjectBytes) {
    return Error{Code::kUnsupported, "tensor '" + tensors[shard.tensors.front()].name + "' has " +
                                         format_bytes(shard.size_bytes) +
                                         "; an object may have at most 5 GiB"};
  }
  ObjectRef object;
  object.key = options.key_prefix + "a" + std::to_string(number) + ".safetensors";
  object.length_bytes = shard.size_bytes;
  object.prefix_bytes = shard.prefix.size();
  ShardSource source(shard, tensors, bytes, progress);
  SILT_TRY(create_unique(store, object.key, source));
  std::vector<Sum128> found;
  SILT_ASSIGN(object.sha256, source.finish(&found));
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] != sums[shard.tensors[i]]) return changed_meanwhile(tensors[shard.tensors[i]]);
  }
  return object;
}

}  // namespace

Result<Artifact> write_anchor(Store& store, std::span<const TensorInfo> tensors,
                              const StateBytes& bytes, const std::vector<Sum128>& sums,
                              const std::string& root, const AnchorOptions& options) {
  std::vector<Shard> shards = cut_shards(tensors, options.object_bytes);
  uint64_t total = 0;
  for (Shard& shard : shards) {
    make_prefix(tensors, sums, root, &shard);
    total += shard.size_bytes;
  }
  std::atomic<uint64_t> done{0};
  const auto progress = [&](uint64_t bytes_done) {
    const uint64_t now = done += bytes_done;
    return tell(options.progress, std::min(now, total), total);
  };
  std::vector<ObjectRef> objects(shards.size());
  const unsigned transfers = store.traits().transfers;
  const unsigned at_once = transfers > 1
                               ? threads_within(transfers, options.memory_bytes, kUploadBytes)
                               : options.threads;
  SILT_TRY(parallel_for(shards.size(), at_once, [&](uint64_t i, unsigned) -> Status {
    SILT_ASSIGN(objects[i],
                write_shard(store, shards[i], i, tensors, bytes, sums, options, progress));
    return {};
  }));
  Artifact artifact;
  artifact.kind = ArtifactKind::kAnchor;
  artifact.to_root = root;
  artifact.bytes = total;
  artifact.objects = std::move(objects);
  return artifact;
}

Result<Artifact> write_packed_anchor(Store& store, Uploads& uploads,
                                     std::span<const TensorInfo> tensors, const StateBytes& bytes,
                                     const std::vector<Sum128>& sums, const std::string& root,
                                     DeltaOptions options) {
  const ZeroBytes zeros;
  SILT_ASSIGN(const std::vector<Sum128> zero_sums, sum_all(tensors, zeros, options.threads));
  options.from_root = state_root(state_rows(tensors, zero_sums));
  options.codec = find_codec("dense");
  options.packs.chunks = false;  // hashing as much again would take an eighth of the time
  const StateReader reader(tensors, zeros, nullptr);
  SILT_ASSIGN(DeltaOutcome outcome, write_delta(store, uploads, reader, zeros, bytes, options));
  for (size_t t = 0; t < tensors.size(); ++t)
    if (outcome.sums_after[t] != sums[t]) return changed_meanwhile(tensors[t]);
  outcome.artifact.kind = ArtifactKind::kAnchor;
  outcome.artifact.packed = true;
  outcome.artifact.to_root = root;
  return std::move(outcome.artifact);
}

Result<std::unique_ptr<AnchorBytes>> AnchorBytes::open(std::shared_ptr<Store> store,
                                                       const Commit& commit,
                                                       std::span<const TensorInfo> tensors,
                                                       const ProveOptions& options) {
  const Artifact* artifact = commit.find(ArtifactKind::kAnchor);
  if (artifact == nullptr) return Error{Code::kInternal, commit.id.name() + " has no anchor"};
  auto anchor = std::make_unique<AnchorBytes>();
  anchor->store_ = std::move(store);
  anchor->places_.resize(tensors.size());
  anchor->known_.resize(tensors.size());
  anchor->sums_.resize(tensors.size());
  const std::string& context = anchor->context_ = "anchor of " + commit.id.name();
  Result<std::vector<ObjectRef>> objects = artifact_objects(*anchor->store_, *artifact);
  if (!objects) return std::move(objects).error().in(context);
  anchor->objects_ = *std::move(objects);
  for (const ObjectRef& object : anchor->objects_) {
    if (!checked_add(anchor->size_bytes_, object.length_bytes, &anchor->size_bytes_))
      return Error{Code::kCorrupt, context + ": its objects are larger than any store"};
  }
  Status indexed = anchor->read_headers(commit, tensors, options);
  if (indexed) return anchor;
  // Which object is damaged is more than what does not fit, or seems to be new, because of it.
  const Code code = indexed.error().code;
  if (code == Code::kCorrupt || code == Code::kUnsupported) SILT_TRY(anchor->prove(options));
  return std::move(indexed).error().in(context);
}

Status AnchorBytes::read_headers(const Commit& commit, std::span<const TensorInfo> tensors,
                                 const ProveOptions& options) {
  SILT_TRY(read_headers(tensors, options));
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (known_[t]) continue;
    return Error{Code::kCorrupt, "tensor '" + tensors[t].name + "' is missing"};
  }
  if (state_root(state_rows(tensors, sums_)) == commit.root) return {};
  return Error{Code::kCorrupt, "the sums it states do not lead to the version's root"};
}

Status AnchorBytes::read_headers(std::span<const TensorInfo> tensors, const ProveOptions& options) {
  const bool local = store_->traits().local;
  uint64_t largest = 1;
  for (const ObjectRef& object : objects_)
    largest = std::max(largest, std::min(object.prefix_bytes, kMaxHeaderBytes));
  headers_ = std::vector<Sha256>(objects_.size());
  std::mutex mutex;
  return parallel_for(objects_.size(),
                      threads_within(local ? options.threads : store_->traits().transfers,
                                     options.memory_bytes, largest),
                      [&](uint64_t i, unsigned) -> Status {
                        const ObjectRef& object = objects_[i];
                        if (local) SILT_TRY(check_length(*store_, object));
                        if (object.prefix_bytes < kLengthFieldBytes ||
                            object.prefix_bytes > kMaxHeaderBytes + kLengthFieldBytes ||
                            object.prefix_bytes > object.length_bytes) {
                          return Error{
                              Code::kCorrupt,
                              "object '" + object.key + "': its header's length is out of bounds"};
                        }
                        std::vector<std::byte> prefix(object.prefix_bytes);
                        Status read = store_->read(object.key, 0, prefix);
                        if (!read) return promised(std::move(read).error());
                        headers_[i].update(prefix);
                        const std::lock_guard lock(mutex);
                        return index_object(i, prefix, tensors);
                      });
}

Status AnchorBytes::prove(const ProveOptions& options) const {
  std::vector<Promised> wanted;
  for (const ObjectRef& object : objects_) wanted.push_back({&object, nullptr, context_});
  return prove_objects(*store_, wanted, options);
}

Status AnchorBytes::index_object(size_t number, ByteSpan prefix,
                                 std::span<const TensorInfo> tensors) {
  const ObjectRef& object = objects_[number];
  const uint64_t prefix_bytes = prefix.size();
  auto corrupt = [&object](const std::string& message) {
    return Error{Code::kCorrupt, "object '" + object.key + "': " + message};
  };
  SILT_ASSIGN(const uint64_t header_bytes,
              parse_length_field(prefix.first(kLengthFieldBytes), object.length_bytes));
  if (header_bytes + kLengthFieldBytes != prefix_bytes) {
    return corrupt("its header's length is not the one the commit states");
  }
  Result<SafetensorsHeader> header = parse_safetensors_header(
      as_text(prefix.subspan(kLengthFieldBytes)), object.length_bytes - prefix_bytes);
  if (!header) return std::move(header).error().in("object '" + object.key + "'");
  const auto sums = std::find_if(header->metadata.begin(), header->metadata.end(),
                                 [](const auto& item) { return item.first == kSumsKey; });
  constexpr size_t kDigits = 32;
  if (sums == header->metadata.end() || sums->second.size() != header->entries.size() * kDigits) {
    return corrupt("it does not state the sums of its tensors");
  }
  for (size_t i = 0; i < header->entries.size(); ++i) {
    const SafetensorsEntry& entry = header->entries[i];
    const auto found = std::lower_bound(
        tensors.begin(), tensors.end(), entry.info.name,
        [](const TensorInfo& t, const std::string& name) { return t.name < name; });
    if (found == tensors.end() || *found != entry.info) {
      return corrupt("tensor '" + entry.info.name + "' is not one of the version's");
    }
    const auto tensor = static_cast<size_t>(found - tensors.begin());
    if (known_[tensor]) return corrupt("tensor '" + entry.info.name + "' stands twice");
    known_[tensor] = true;
    places_[tensor] = {number, prefix_bytes + entry.offset_bytes};
    if (!sum_from_hex(std::string_view(sums->second).substr(i * kDigits, kDigits),
                      &sums_[tensor])) {
      return corrupt("the sum of tensor '" + entry.info.name + "' is not hexadecimal");
    }
  }
  return {};
}

Status AnchorBytes::read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const {
  const Place& place = places_[tensor];
  Status status = store_->read(objects_[place.object].key, place.offset_bytes + offset_bytes, out);
  if (!status) return promised(std::move(status).error());
  return {};
}

}  // namespace siltstone
