#include "store/relayed.h"

#include <chrono>

namespace siltstone {
namespace {

constexpr auto kLeftAlone = std::chrono::seconds(10);

int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

// Names that come to exist, or change, while somebody looks for them.
bool is_found_by_looking(std::string_view name) {
  return name.starts_with("log/") || name.starts_with("head/") || name.starts_with("branches/") ||
         name.starts_with("tags/") || name == "repo.json";
}

template <class T>
const Error* error_of(const T& result) {
  return result ? nullptr : &result.error();
}

}  // namespace

bool RelayedStore::asks_relay(std::string_view name) const {
  return now_ns() >= relay_again_ns_ && !(writes_ && is_found_by_looking(name));
}

bool RelayedStore::stands(std::string_view name, const Error* error) {
  if (error == nullptr || error->code == Code::kInvalidArgument) return true;
  if (error->code == Code::kUnavailable)
    relay_again_ns_ = now_ns() + std::chrono::nanoseconds(kLeftAlone).count();
  // What a commit names is there, whatever the relay thinks.
  return error->code == Code::kNotFound && is_found_by_looking(name);
}

template <class Read>
auto RelayedStore::read_through(std::string_view name, const Read& read) {
  if (asks_relay(name)) {
    auto answer = read(*relay_);
    if (stands(name, error_of(answer))) return answer;
  }
  return read(*store_);
}

StoreTraits RelayedStore::traits() const {
  StoreTraits traits = store_->traits();
  // A writer asks the store itself for versions, and it does not wait.
  traits.waits = !writes_ && now_ns() >= relay_again_ns_ && relay_->traits().waits;
  return traits;
}

Result<uint64_t> RelayedStore::size_bytes(std::string_view name) {
  return read_through(name, [&](Store& store) { return store.size_bytes(name); });
}

Status RelayedStore::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  return read_through(name, [&](Store& store) { return store.read(name, offset_bytes, out); });
}

Result<std::string> RelayedStore::read_all(std::string_view name, uint64_t limit_bytes) {
  return read_through(name, [&](Store& store) { return store.read_all(name, limit_bytes); });
}

Result<bool> RelayedStore::wait(std::string_view name, double seconds,
                                const std::atomic<bool>* stop) {
  if (!asks_relay(name)) return false;
  Result<bool> answer = relay_->wait(name, seconds, stop);
  if (stands(name, error_of(answer))) return answer;
  return false;
}

Status RelayedStore::create(std::string_view name, const ByteSource& content) {
  writes_ = true;
  return store_->create(name, content);
}

Status RelayedStore::replace(std::string_view name, std::span<const std::byte> content) {
  writes_ = true;
  return store_->replace(name, content);
}

Result<std::vector<ObjectInfo>> RelayedStore::list(std::string_view prefix) {
  return store_->list(prefix);
}

Status RelayedStore::remove(std::string_view name) {
  writes_ = true;
  return store_->remove(name);
}

}  // namespace siltstone
