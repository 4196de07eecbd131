// The way back: the delta from a version to the one before it.
//
// Codec momentum looks at how words moved in the version before, so publishers and replicas that go
// on from a version keep the way back beside its words, as packs in a store of their own: on disk
// or in memory, a hundredth of the model's size. Nothing rests on it: a failure to write one fails
// nothing else; without it a publisher uses other codecs, and a replica rebuilds from an anchor.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "delta/digest.h"
#include "delta/grid.h"
#include "repo/commit.h"
#include "repo/pack_writer.h"
#include "siltstone/codec.h"
#include "siltstone/store.h"

namespace siltstone {

struct WayBack {
  std::shared_ptr<Store> store;
  Artifact artifact;  // from the version's root to that of the one before
};

// Whether the delta after this version may look back at the one before it. Not where a path may
// begin at an anchor: whoever comes from there does not have it.
bool wants_way_back(const Commit& version);

// Where it is kept in memory.
std::shared_ptr<Store> memory_for_way_back();

// On disk: a folder of its own in `folder`.
std::shared_ptr<Store> disk_for_way_back(const std::filesystem::path& folder);
// Says what was written there; until then it is no way back.
Status record_way_back(const WayBack& way);
// From the version of that root. Empty if there is none that can be read.
std::optional<WayBack> find_way_back(const std::filesystem::path& folder, std::string_view root);
// Removes all others, finished or not.
void sweep_ways_back(const std::filesystem::path& folder, std::string_view root);

// The section that takes back `change`, the change of a tile from words of sum `before` to words of
// sum `after`.
Status append_way_back(const TileChange& change, const Tile& tile, const Sum128& before,
                       const Sum128& after, std::vector<std::byte>* out);

// Writes a way back from many threads, tile by tile. The first failure is told by finish().
class WayBackWriter {
 public:
  explicit WayBackWriter(std::shared_ptr<Store> store);
  // A tile that was `before` in the version before and is `after` now.
  void add(const TensorInfo& info, const Tile& tile, ByteSpan before, ByteSpan after);
  // Sections that append_way_back made.
  void add(const std::string& tensor, std::vector<std::byte> sections, uint64_t changed_elements);
  Result<WayBack> finish(const std::string& from_root, const std::string& to_root);

 private:
  void keep(Status status);

  std::shared_ptr<Store> store_;
  std::mutex mutex_;
  Uploads uploads_;   // to a local store: none outlives the call that made it
  PackWriter packs_;  // guarded by mutex_
  Status status_;     // guarded by mutex_
};

}  // namespace siltstone
