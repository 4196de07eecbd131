// Finds what changed between two states, encodes it, and writes it to a store as delta packs.
#pragma once

#include <string>
#include <vector>

#include "repo/commit.h"
#include "repo/pack_writer.h"
#include "repo/state.h"
#include "repo/uploads.h"
#include "repo/way_back.h"
#include "siltstone/codec.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

struct DeltaOptions {
  std::string key_prefix;  // keys are this + number + ".safetensors"
  std::string from_root;
  PackOptions packs;
  uint64_t batch_bytes = 0;
  uint64_t memory_bytes = 0;
  unsigned threads = 0;
  const Codec* codec = nullptr;  // null: the smallest
  Effort effort = Effort::kDefault;
  // Reads the version before `base`, for codecs that look at it; may be null.
  const StateReader* earlier = nullptr;
  std::shared_ptr<Store> back;  // where the way back is written; may be null
  Progress progress;
};

struct DeltaOutcome {
  Artifact artifact;                // its to_root is the caller's to fill in
  std::vector<Sum128> sums_before;  // of the base's own bytes, before its chain
  std::vector<Sum128> sums_after;
  uint64_t bytes_written = 0;
  bool looks_back = false;      // some sections need the version before `base`
  std::optional<WayBack> back;  // from a version whose root is the caller's to fill in
};

// `base` gives the words of the previous state, `next` those of the new one. The caller must
// compare sums_before with what the base was believed to hold before trusting the artifact, whose
// packs are there once `uploads` are finished. Output does not depend on the number of threads.
Result<DeltaOutcome> write_delta(Store& store, Uploads& uploads, const StateReader& base,
                                 const StateBytes& base_bytes, const StateBytes& next,
                                 const DeltaOptions& options);

}  // namespace siltstone
