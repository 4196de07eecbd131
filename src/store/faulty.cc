#include "store/faulty.h"

#include <algorithm>
#include <utility>

#include "store/names.h"

namespace siltstone {
namespace {

std::string label(std::string_view what, std::string_view name) {
  return std::string(what) + " '" + std::string(name) + "'";
}

bool is_hint(std::string_view name) {
  return name.starts_with("head/");
}

}  // namespace

FaultyStore::FaultyStore(std::shared_ptr<Store> inner) : inner_(std::move(inner)) {}

void FaultyStore::fail_at(uint64_t index, Fault fault) {
  heal();
  operations_ = 0;
  struck_ = false;
  armed_fault_ = fault;
  armed_index_ = index;
}

void FaultyStore::heal() {
  armed_index_ = UINT64_MAX;
  const std::lock_guard lock(mutex_);
  stale_.clear();
}

void FaultyStore::on_operation(std::function<void(std::string_view, std::string_view)> hook) {
  hook_ = std::move(hook);
}

std::string FaultyStore::url() const {
  return inner_->url();
}
StoreTraits FaultyStore::traits() const {
  return inner_->traits();
}

std::optional<Fault> FaultyStore::begin(std::string_view operation, std::string_view name) {
  const uint64_t number = operations_.fetch_add(1);
  if (hook_) hook_(operation, name);
  if (number != armed_index_) return {};
  struck_ = true;
  return armed_fault_.load();
}

template <class T, class Inner>
T FaultyStore::with_fault(std::optional<Fault> fault, std::string_view what, std::string_view name,
                          const Inner& inner) {
  if (!fault || *fault == Fault::kStaleHint) return inner();
  if (*fault == Fault::kNoSpace) {
    return Error{Code::kIo, label(what, name) + ": injected: no space left on device"};
  }
  if (*fault != Fault::kFailAfter) {
    return Error{Code::kUnavailable, label(what, name) + ": injected: the request was not sent"};
  }
  T done = inner();
  if (!done) return done;
  return Error{Code::kUnavailable, label(what, name) + ": injected: the reply was lost"};
}

bool FaultyStore::is_stale(std::optional<Fault> fault, std::string_view name, Content* content) {
  if (!is_hint(name)) return false;
  const std::lock_guard lock(mutex_);
  if (fault == Fault::kStaleHint) stale_.emplace(name);
  if (!stale_.contains(name)) return false;
  const auto found = previous_.find(name);
  *content = found == previous_.end() ? std::nullopt : found->second;
  return true;
}

void FaultyStore::remember(std::string_view name) {
  if (!is_hint(name)) return;
  Content content;
  const Result<uint64_t> size = inner_->size_bytes(name);
  if (size) {
    content.emplace(*size);
    if (!inner_->read(name, 0, *content)) content.reset();
  }
  const std::lock_guard lock(mutex_);
  previous_.insert_or_assign(std::string(name), std::move(content));
  stale_.erase(std::string(name));
}

Result<uint64_t> FaultyStore::size_bytes(std::string_view name) {
  const std::optional<Fault> fault = begin("size", name);
  Content stale;
  if (is_stale(fault, name, &stale)) {
    if (!stale) return no_such_object(name, url());
    return uint64_t{stale->size()};
  }
  return with_fault<Result<uint64_t>>(fault, "size of", name,
                                      [&] { return inner_->size_bytes(name); });
}

Status FaultyStore::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  const std::optional<Fault> fault = begin("read", name);
  Content stale;
  if (is_stale(fault, name, &stale)) {
    if (!stale) return no_such_object(name, url());
    Status in_range = check_range(name, stale->size(), offset_bytes, out.size());
    if (in_range)
      std::ranges::copy(std::span(*stale).subspan(offset_bytes, out.size()), out.begin());
    return in_range;
  }
  if (fault == Fault::kShortRead) {
    const size_t half_bytes = out.size() / 2;
    Status got = inner_->read(name, offset_bytes, out.first(half_bytes));
    if (!got) return got;
    return Error{Code::kCorrupt, label("read of", name) + ": injected: expected " +
                                     std::to_string(out.size()) + " bytes, found " +
                                     std::to_string(half_bytes)};
  }
  if (fault == Fault::kWrongBytes) {
    Status got = inner_->read(name, offset_bytes, out);
    if (!got || out.empty()) return got;
    // A place that differs from one operation to the next, the same in every run.
    constexpr uint64_t kSpread = 0x9e3779b97f4a7c15;
    const uint64_t spread = (armed_index_.load() + 1) * kSpread;
    out[(spread >> 8) % out.size()] ^= std::byte{1} << (spread & 7);
    return got;
  }
  return with_fault<Status>(fault, "read of", name,
                            [&] { return inner_->read(name, offset_bytes, out); });
}

Status FaultyStore::create(std::string_view name, const ByteSource& content) {
  return with_fault<Status>(begin("create", name), "creation of", name,
                            [&] { return inner_->create(name, content); });
}

Status FaultyStore::replace(std::string_view name, std::span<const std::byte> content) {
  return with_fault<Status>(begin("replace", name), "replacement of", name, [&] {
    remember(name);
    return inner_->replace(name, content);
  });
}

Result<std::vector<ObjectInfo>> FaultyStore::list(std::string_view prefix) {
  return with_fault<Result<std::vector<ObjectInfo>>>(begin("list", prefix), "listing of", prefix,
                                                     [&] { return inner_->list(prefix); });
}

Status FaultyStore::remove(std::string_view name) {
  return with_fault<Status>(begin("remove", name), "removal of", name, [&] {
    remember(name);
    return inner_->remove(name);
  });
}

}  // namespace siltstone
