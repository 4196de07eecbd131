// The objects that a relay keeps on disk, in a folder of its own.
//
//   DIR/lock        held while a relay runs
//   DIR/objects/X   one object; X is the SHA-256 of its name
//   DIR/arriving/   what is being fetched; emptied at every start
//
// A file counts as whole only in the process that proved it, and only while its inode, size and
// times are those of that moment; anything else is proven again before it is served. So nothing
// here needs to be durable, and a torn or foreign file is noticed. What is being fetched or served
// (somebody holds its Entry) is never removed to make room; of the rest, what was asked for longest
// ago goes first.
//
// Threads: every method may be called from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/files.h"
#include "relay/entry.h"
#include "relay/metrics.h"
#include "siltstone/result.h"

namespace siltstone::relay {

class Cache {
 public:
  struct Found {
    std::shared_ptr<Entry> entry;
    std::shared_ptr<const File> file;  // open, if the object is whole and on disk
    bool made = false;                 // the entry is new
  };

  // kConflict if another process uses the folder.
  static Result<std::unique_ptr<Cache>> open(const std::filesystem::path& folder,
                                             uint64_t limit_bytes, Metrics& metrics);

  // The object's entry; made, unclaimed, if there is none. Whoever claims it calls keep, adopt or
  // drop in the end.
  Found find(const std::string& name);
  // For an object that is in memory alone: the next one who asks finds a new entry.
  void forget(const std::string& name, const Entry& entry);

  // What an earlier process left under that name, not proven. Empty if nothing.
  std::optional<File> leftover(const std::string& name);
  // It is proven now.
  Status adopt(const std::string& name, Entry& entry, const File& file);
  // It is not what it should be.
  void discard(const std::string& name);

  // A new file of `length_bytes` for an object that arrives; room is made first. kUnavailable if
  // there is none: everything is in use, the object is larger than the cache, the disk is full.
  Result<File> make_file(const std::string& name, uint64_t length_bytes);
  // The file is whole and proven.
  Status keep(const std::string& name, Entry& entry, const File& file);
  // The object did not arrive: forgets it, then fails the entry.
  void drop(const std::string& name, Entry& entry, Error error);

  CacheUse use() const;
  // Removes what is arriving, whoever still writes to it.
  void clear_arriving();

 private:
  struct Slot {
    std::shared_ptr<Entry> entry;
    uint64_t charge_bytes = 0;         // of the disk
    bool on_disk = false;              // there is a file in objects/
    FileStat proven;                   // the file when it was proven
    std::shared_ptr<const File> file;  // open, if its key is in open_
    std::optional<std::list<std::string>::iterator> recent;
  };
  using Slots = std::unordered_map<std::string, Slot>;

  Cache(std::filesystem::path folder, uint64_t limit_bytes, Metrics& metrics, File lock)
      : folder_(std::move(folder)),
        limit_bytes_(limit_bytes),
        metrics_(metrics),
        lock_(std::move(lock)) {}
  Status scan();
  std::filesystem::path object_path(const std::string& key) const;
  std::filesystem::path arriving_path(const std::string& key) const;
  void touch(const std::string& key, Slot& slot);
  void remove_slot(Slots::iterator slot);
  std::shared_ptr<const File> open_whole(const std::string& key, Slot& slot);
  Found distrust(const std::string& key, const std::shared_ptr<Entry>& whole);
  bool make_room(uint64_t charge_bytes, std::vector<std::filesystem::path>* doomed);
  bool evict_one(std::vector<std::filesystem::path>* doomed);
  Result<File> allocate(const std::string& key, uint64_t length_bytes);
  Status settle(const std::string& key, Entry& entry, const File& file);

  const std::filesystem::path folder_;
  const uint64_t limit_bytes_;
  Metrics& metrics_;
  const File lock_;
  mutable std::mutex mutex_;
  Slots slots_;                    // by key; guarded by mutex_, as all below
  std::list<std::string> recent_;  // keys of files in objects/, least recently used first
  std::vector<std::string> open_;  // keys whose files were opened; some twice, some gone
  uint64_t used_bytes_ = 0;
};

}  // namespace siltstone::relay
