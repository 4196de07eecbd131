#include "repo/objects.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/parallel.h"
#include "base/try.h"

namespace siltstone {
namespace {

constexpr int kAttempts = 5;

int attempts_for(const Store& store) {
  return store.traits().retries ? 1 : kAttempts;
}

void back_off(int attempt) {
  std::this_thread::sleep_for(std::chrono::milliseconds(5 << attempt));
}

}  // namespace

PiecesSource::PiecesSource(std::vector<ByteSpan> pieces, std::string sha256)
    : sha256_(std::move(sha256)), pieces_(std::move(pieces)) {
  for (const ByteSpan& piece : pieces_) {
    begins_.push_back(size_bytes_);
    size_bytes_ += piece.size();
  }
}

Status PiecesSource::read(uint64_t offset_bytes, MutByteSpan out) const {
  if (offset_bytes > size_bytes_ || out.size() > size_bytes_ - offset_bytes) {
    return Error{Code::kInternal, "read beyond the end of an object being written"};
  }
  if (out.empty()) return {};
  auto next = std::upper_bound(begins_.begin(), begins_.end(), offset_bytes);
  for (size_t i = static_cast<size_t>(next - begins_.begin()) - 1; !out.empty(); ++i) {
    const ByteSpan rest = pieces_[i].subspan(offset_bytes - begins_[i]);
    const size_t count = std::min(rest.size(), out.size());
    if (count > 0) std::memcpy(out.data(), rest.data(), count);
    out = out.subspan(count);
    offset_bytes += count;
  }
  return {};
}

Status create_unique(Store& store, std::string_view key, const ByteSource& content) {
  // Between a network store and us something may have sent the request twice.
  bool unknown = store.traits().retries;
  for (int attempt = 0;; ++attempt) {
    Status status = store.create(key, content);
    if (status) return {};
    if (status.error().code == Code::kConflict && unknown) return {};
    if (status.error().code != Code::kUnavailable || attempt + 1 == attempts_for(store))
      return status;
    unknown = true;
    back_off(attempt);
  }
}

Result<bool> create_addressed(Store& store, const std::string& key, const std::string& sha256,
                              ByteSpan content) {
  if (store.size_bytes(key)) return false;
  const PiecesSource source({content}, sha256);
  for (int attempt = 0;; ++attempt) {
    Status status = store.create(key, source);
    if (status) return true;
    if (status.error().code == Code::kConflict) return attempt > 0;
    if (status.error().code != Code::kUnavailable || attempt + 1 == attempts_for(store)) {
      return std::move(status).error();
    }
    back_off(attempt);
  }
}

Result<std::vector<ObjectRef>> artifact_objects(Store& store, const Artifact& artifact) {
  if (artifact.lists.empty()) return artifact.objects;
  std::vector<std::vector<std::byte>> lists(artifact.lists.size());
  std::vector<Promised> wanted;
  for (size_t i = 0; i < lists.size(); ++i) wanted.push_back({&artifact.lists[i], &lists[i]});
  SILT_TRY(prove_objects(store, wanted, {.threads = 1}));
  std::vector<ObjectRef> objects;
  for (size_t i = 0; i < lists.size(); ++i) {
    Result<std::vector<ObjectRef>> part = parse_object_list(as_text(lists[i]));
    if (!part) return std::move(part).error().in("object list '" + artifact.lists[i].key + "'");
    objects.insert(objects.end(), part->begin(), part->end());
  }
  return objects;
}

Status check_length(Store& store, const ObjectRef& object) {
  const Result<uint64_t> size = store.size_bytes(object.key);
  if (!size) return promised(size.error());
  if (*size == object.length_bytes) return {};
  return Error{Code::kCorrupt, "object '" + object.key + "' has " + std::to_string(*size) +
                                   " bytes, expected " + std::to_string(object.length_bytes)};
}

Status check_sha256(const ObjectRef& object, const std::string& found) {
  if (found == object.sha256) return {};
  return Error{Code::kCorrupt,
               "object '" + object.key + "' has SHA-256 " + found + ", expected " + object.sha256};
}

namespace {

// Objects that are read, and what is known of them so far.
class Proving {
 public:
  Proving(std::span<const Promised> objects, const ProveOptions& options)
      : objects_(objects), options_(options), hashes_(objects.size()) {}

  Status run(Store& store, size_t first, size_t count, const ReadAhead& ahead) {
    std::vector<Streamed> streamed;
    for (size_t i = first; i < first + count; ++i) {
      const Promised& wanted = objects_[i];
      if (wanted.keep != nullptr) wanted.keep->resize(wanted.object->length_bytes);
      streamed.push_back({wanted.object,
                          wanted.keep != nullptr ? MutByteSpan(*wanted.keep) : MutByteSpan(),
                          wanted.context});
      if (wanted.object->length_bytes == 0) SILT_TRY(in_context(finish(i), wanted.context));
    }
    return stream_objects(
        store, streamed, ahead, [&](size_t i, uint64_t offset, ByteSpan piece) -> Status {
          const size_t number = first + i;
          hashes_[number].update(piece);
          if (objects_[number].pass) objects_[number].pass(piece);
          if (options_.arrived) SILT_TRY(options_.arrived(piece.size()));
          const uint64_t end = offset + piece.size();
          return end < streamed[i].object->length_bytes ? Status() : finish(number);
        });
  }

 private:
  Status finish(size_t number) {
    const Promised& wanted = objects_[number];
    SILT_TRY(check_sha256(*wanted.object, to_hex(hashes_[number].finish())));
    return wanted.proven ? wanted.proven() : Status();
  }

  const std::span<const Promised> objects_;
  const ProveOptions& options_;
  std::vector<Sha256> hashes_;
};

}  // namespace

Status prove_objects(Store& store, std::span<const Promised> objects, const ProveOptions& options) {
  Proving proving(objects, options);
  if (store.traits().transfers > 1 || !store.traits().local)
    return proving.run(store, 0, objects.size(), ReadAhead::of(store, options.memory_bytes));
  return parallel_for(objects.size(), options.threads, [&](uint64_t i, unsigned) -> Status {
    SILT_TRY(in_context(check_length(store, *objects[i].object), objects[i].context));
    return proving.run(store, i, 1, {});
  });
}

Status prove_object(Store& store, const ObjectRef& object, std::vector<std::byte>* keep) {
  const Promised one{&object, keep};
  return prove_objects(store, {&one, 1}, {.threads = 1});
}

}  // namespace siltstone
