#include "relay/upstream.h"

namespace siltstone::relay {
namespace {

Error read_only(std::string_view operation) {
  return {Code::kPermission, "a relay reads; it does not " + std::string(operation)};
}

bool is_answer(Code code) {
  return code == Code::kNotFound || code == Code::kCorrupt || code == Code::kInvalidArgument;
}

}  // namespace

std::optional<Error> Upstream::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

template <class T>
T Upstream::counted(T outcome) {
  ++metrics_.store_requests;
  const bool failed = !outcome.has_value() && outcome.error().code != Code::kNotFound;
  if (failed) ++metrics_.store_errors;
  const std::lock_guard lock(mutex_);
  if (failed && !is_answer(outcome.error().code)) {
    trouble_ = outcome.error();
  } else {
    trouble_.reset();
  }
  return outcome;
}

Result<uint64_t> Upstream::size_bytes(std::string_view name) {
  return counted(store_->size_bytes(name));
}

Status Upstream::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  Status status = counted(store_->read(name, offset_bytes, out));
  if (status) metrics_.fetched_bytes += out.size();
  return status;
}

Result<std::string> Upstream::read_all(std::string_view name, uint64_t limit_bytes) {
  Result<std::string> content = counted(store_->read_all(name, limit_bytes));
  if (content) metrics_.fetched_bytes += content->size();
  return content;
}

Status Upstream::create(std::string_view, const ByteSource&) {
  return read_only("create");
}

Status Upstream::replace(std::string_view, std::span<const std::byte>) {
  return read_only("replace");
}

Result<std::vector<ObjectInfo>> Upstream::list(std::string_view) {
  return read_only("list");
}

Status Upstream::remove(std::string_view) {
  return read_only("remove");
}

}  // namespace siltstone::relay
