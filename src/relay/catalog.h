// Which bytes a commit promises under which name.
//
// The name of a data object says which commit names it, so that a relay that knows nothing reads
// that commit first. What it has read it keeps, up to a bound. Threads: safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "relay/names.h"
#include "repo/commit.h"
#include "siltstone/result.h"

namespace siltstone::relay {

struct Promise {
  uint64_t length_bytes = 0;
  std::string sha256;  // hexadecimal
};

class Catalog {
 public:
  // The proven bytes of a commit or of a list of objects.
  using Read = std::function<Result<std::string>(const ObjectName&)>;
  // The commit in those bytes.
  using Parse = std::function<Result<Commit>(const ObjectName&, const std::string&)>;

  Catalog(Read read, Parse parse) : read_(std::move(read)), parse_(std::move(parse)) {}

  // What the object must be. kNotFound if no commit names it: then nothing can prove it.
  // REQUIRES: data.kind is kData.
  Result<Promise> promise(const ObjectName& data);

 private:
  struct Named {
    std::string attempt;
    std::unordered_map<std::string, Promise> objects;
    std::vector<std::string> lists;  // that are not read yet
  };
  using Key = std::pair<std::string, uint64_t>;
  struct Slot {
    std::shared_ptr<const Named> named;
    std::list<Key>::iterator recent;
  };

  Result<std::shared_ptr<const Named>> named_by(const Key& key);
  Result<std::shared_ptr<const Named>> with_lists(const Key& key);
  std::shared_ptr<const Named> find(const Key& key);
  void store(const Key& key, std::shared_ptr<const Named> named);

  const Read read_;
  const Parse parse_;
  std::mutex lists_mutex_;  // one reads lists at a time: they may be large
  std::mutex mutex_;
  std::map<Key, Slot> slots_;  // guarded by mutex_, as all below
  std::list<Key> recent_;      // least recently used first
  size_t objects_ = 0;         // in all slots
};

}  // namespace siltstone::relay
