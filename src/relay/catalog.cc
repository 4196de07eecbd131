#include "relay/catalog.h"

#include "base/try.h"

namespace siltstone::relay {
namespace {

// About 400 bytes each: the bound of what a catalog holds, and of what one commit may name.
constexpr size_t kMaxObjects = size_t{1} << 18;

Promise promise_of(const ObjectRef& object) {
  return {object.length_bytes, object.sha256};
}

}  // namespace

Result<Promise> Catalog::promise(const ObjectName& data) {
  const Key key{data.branch, data.seq};
  SILT_ASSIGN(std::shared_ptr<const Named> named, named_by(key));
  auto found = named->objects.find(data.text);
  if (found == named->objects.end() && named->attempt == data.attempt && !named->lists.empty()) {
    SILT_ASSIGN(named, with_lists(key));
    found = named->objects.find(data.text);
  }
  if (found != named->objects.end()) return found->second;
  return Error{Code::kNotFound, "commit " + data.branch + "@" + std::to_string(data.seq) +
                                    " does not name '" + data.text +
                                    "', so that nothing could prove it"};
}

Result<std::shared_ptr<const Catalog::Named>> Catalog::named_by(const Key& key) {
  if (auto known = find(key)) return known;
  const ObjectName name = commit_name(key.first, key.second);
  SILT_ASSIGN(const std::string bytes, read_(name));
  SILT_ASSIGN(const Commit commit, parse_(name, bytes));
  auto named = std::make_shared<Named>();
  named->attempt = commit.attempt;
  for (const Artifact& artifact : commit.artifacts) {
    for (const ObjectRef& object : artifact.objects) {
      named->objects.emplace(object.key, promise_of(object));
    }
    for (const ObjectRef& list : artifact.lists) {
      named->objects.emplace(list.key, promise_of(list));
      named->lists.push_back(list.key);
    }
  }
  store(key, named);
  return std::shared_ptr<const Named>(std::move(named));
}

Result<std::shared_ptr<const Catalog::Named>> Catalog::with_lists(const Key& key) {
  const std::lock_guard lists_lock(lists_mutex_);
  SILT_ASSIGN(const std::shared_ptr<const Named> known, named_by(key));
  if (known->lists.empty()) return known;
  auto named = std::make_shared<Named>(*known);
  for (const std::string& list : known->lists) {
    const auto name = parse_object_name(list);
    if (!name || name->kind != NameKind::kData) {
      return Error{Code::kUnsupported, "the list '" + list + "' has a name of another kind"};
    }
    SILT_ASSIGN(const std::string bytes, read_(*name));
    Result<std::vector<ObjectRef>> objects = parse_object_list(bytes);
    if (!objects) return std::move(objects).error().in("object list '" + list + "'");
    if (named->objects.size() + objects->size() > kMaxObjects) {
      return Error{Code::kUnsupported, "commit " + key.first + "@" + std::to_string(key.second) +
                                           " names more than " + std::to_string(kMaxObjects) +
                                           " objects"};
    }
    for (const ObjectRef& object : *objects) named->objects.emplace(object.key, promise_of(object));
  }
  named->lists.clear();
  store(key, named);
  return std::shared_ptr<const Named>(std::move(named));
}

std::shared_ptr<const Catalog::Named> Catalog::find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto slot = slots_.find(key);
  if (slot == slots_.end()) return {};
  recent_.splice(recent_.end(), recent_, slot->second.recent);
  return slot->second.named;
}

void Catalog::store(const Key& key, std::shared_ptr<const Named> named) {
  const std::lock_guard lock(mutex_);
  const auto remove = [&](std::map<Key, Slot>::iterator slot) {
    objects_ -= slot->second.named->objects.size() + 1;
    recent_.erase(slot->second.recent);
    slots_.erase(slot);
  };
  if (const auto old = slots_.find(key); old != slots_.end()) remove(old);
  while (!recent_.empty() && objects_ + named->objects.size() >= kMaxObjects) {
    remove(slots_.find(recent_.front()));
  }
  objects_ += named->objects.size() + 1;
  slots_[key] = {std::move(named), recent_.insert(recent_.end(), key)};
}

}  // namespace siltstone::relay
