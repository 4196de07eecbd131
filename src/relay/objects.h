// The objects that a relay serves: from its cache, or fetched into it once, however many ask.
//
// Nothing counts as whole before it is proven: a record by its seal, data by what its commit says,
// the rest by its own name. While an object arrives its bytes may be served, all but the last
// kHeldBackBytes, which wait for the proof.
//
// Threads: every method may be called from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "relay/absences.h"
#include "relay/cache.h"
#include "relay/catalog.h"
#include "relay/metrics.h"
#include "relay/names.h"
#include "relay/upstream.h"
#include "relay/workers.h"
#include "repo/read_ahead.h"

namespace siltstone::relay {

inline constexpr uint64_t kHeldBackBytes = uint64_t{64} << 10;

struct ObjectsOptions {
  std::chrono::nanoseconds life = std::chrono::seconds(1);  // of hints and of absence
  unsigned fetches = 4;                                     // of data at once
  ReadAhead ahead;                                          // of each
};

class Objects {
 public:
  // Borrows all three.
  Objects(Upstream& store, Cache& cache, Metrics& metrics, const ObjectsOptions& options);

  // The object, or its entry while it is looked for and arrives. Never waits for the store.
  Cache::Found open(const ObjectName& name);
  // The whole object, at most kMaxListBytes. Waits for the store.
  Result<std::string> read(const ObjectName& name);
  // Whether there is such an object, by asking the store now unless it is here. Waits.
  Result<bool> look(const ObjectName& name);

  const Absences& absences() const { return absences_; }
  // What serves lookups, which are short.
  Workers& lookups() { return lookups_; }

  // Ends what is being fetched; false if it did not end in time.
  bool stop(std::chrono::steady_clock::time_point deadline);

 private:
  std::shared_ptr<Entry> hint(const ObjectName& name);
  void run(const ObjectName& name, Entry& entry);
  void run_hint(const ObjectName& name, const std::shared_ptr<Entry>& entry);
  Entry::View done(const ObjectName& name, std::shared_ptr<const File>* file);
  Status bring(const ObjectName& name, Entry& entry);
  Status bring_record(const ObjectName& name, Entry& entry);
  Status bring_data(const ObjectName& name, const Promise& promise, Entry& entry);
  Result<bool> adopt_record(const ObjectName& name, Entry& entry);
  Result<bool> adopt_data(const ObjectName& name, const Promise& promise, Entry& entry);
  Status keep_record(const ObjectName& name, const std::string& bytes, Entry& entry);
  Status prove_record(const ObjectName& name, const std::string& bytes);
  Result<Promise> promise(const ObjectName& name);
  Result<std::string> repo_id();

  Upstream& store_;
  Cache& cache_;
  Metrics& metrics_;
  const ObjectsOptions options_;
  Absences absences_;
  Catalog catalog_;
  std::atomic<bool> stopping_{false};
  struct Hint {
    std::shared_ptr<Entry> entry;
    Absences::Clock::time_point at;
  };
  std::mutex mutex_;
  std::map<std::string, Hint> hints_;   // guarded by mutex_
  std::optional<std::string> repo_id_;  // guarded by mutex_
  // Last: they end before what their jobs use.
  Workers lookups_;
  Workers fetches_;
};

}  // namespace siltstone::relay
