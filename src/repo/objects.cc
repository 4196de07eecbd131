#include "repo/objects.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/try.h"

namespace siltstone {
namespace {

constexpr int kAttempts = 5;
constexpr uint64_t kReadPieceBytes = uint64_t{4} << 20;

int attempts_for(const Store& store) {
  return store.traits().retries ? 1 : kAttempts;
}

void back_off(int attempt) {
  std::this_thread::sleep_for(std::chrono::milliseconds(5 << attempt));
}

}  // namespace

PiecesSource::PiecesSource(std::vector<ByteSpan> pieces) : pieces_(std::move(pieces)) {
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

Result<bool> create_addressed(Store& store, std::string_view key, ByteSpan content) {
  if (store.size_bytes(key)) return false;
  const PiecesSource source({content});
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

Error promised(Error error) {
  if (error.code == Code::kNotFound) error.code = Code::kCorrupt;
  return error;
}

Result<std::vector<ObjectRef>> artifact_objects(Store& store, const Artifact& artifact) {
  if (artifact.lists.empty()) return artifact.objects;
  std::vector<ObjectRef> objects;
  for (const ObjectRef& list : artifact.lists) {
    std::vector<std::byte> bytes;
    SILT_TRY(prove_object(store, list, &bytes));
    Result<std::vector<ObjectRef>> part = parse_object_list(as_text(bytes));
    if (!part) return std::move(part).error().in("object list '" + list.key + "'");
    objects.insert(objects.end(), part->begin(), part->end());
  }
  return objects;
}

Status prove_object(Store& store, const ObjectRef& object, std::vector<std::byte>* keep) {
  const Result<uint64_t> size = store.size_bytes(object.key);
  if (!size) return promised(size.error());
  if (*size != object.length_bytes) {
    return Error{Code::kCorrupt, "object '" + object.key + "' has " + std::to_string(*size) +
                                     " bytes, expected " + std::to_string(object.length_bytes)};
  }
  std::vector<std::byte> piece(std::min(keep ? *size : kReadPieceBytes, *size));
  Sha256 hash;
  for (uint64_t offset = 0; offset < *size; offset += piece.size()) {
    const MutByteSpan part(piece.data(), std::min<uint64_t>(piece.size(), *size - offset));
    Status status = store.read(object.key, offset, part);
    if (!status) return promised(std::move(status).error());
    hash.update(part);
  }
  const std::string found = to_hex(hash.finish());
  if (found != object.sha256) {
    return Error{Code::kCorrupt, "object '" + object.key + "' has SHA-256 " + found +
                                     ", expected " + object.sha256};
  }
  if (keep) *keep = std::move(piece);
  return {};
}

}  // namespace siltstone
