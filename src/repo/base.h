// Where a publisher reads the previous state from: bytes that it still has, moved along the chain
// of deltas to the branch's head.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "repo/anchor.h"
#include "repo/base_cache.h"
#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/state.h"

namespace siltstone {

struct Base {
  std::unique_ptr<Checkpoint> kept;  // owns what `bytes` reads, where it is a cache
  std::unique_ptr<StateBytes> bytes;
  const AnchorBytes* anchor = nullptr;  // `bytes`, where they are a plain anchor's
  std::vector<Sum128> sums;             // of `bytes`, as they are believed to be
  std::unique_ptr<const Chain> chain;
  // The version before `bytes`, where it is known and was asked for or is looked back at. It reads
  // through `back`.
  std::unique_ptr<const Chain> back;
  std::string back_root;
  std::unique_ptr<const StateReader> earlier;
  uint64_t fetched_bytes = 0;  // from the store: anchor and chain
  std::string description;     // for people

  // The state at the end of the chain. Borrows this base, which must not be moved meanwhile.
  StateReader reader(std::span<const TensorInfo> tensors) const {
    return {tensors, *bytes, chain.get(), earlier.get()};
  }
};

struct BaseOptions {
  unsigned threads = 0;
  uint64_t memory_bytes = 0;
  bool earlier = false;    // the version before the base is wanted in any case
  Meter* meter = nullptr;  // of what is fetched here; borrowed
  // The chain may still arrive when the base is returned, and the sums were not compared with the
  // head's root: rebuild() waits for it, and whoever calls that compares.
  bool overlap = false;
  const std::vector<size_t>* here = nullptr;  // ChainOptions::here; borrowed
};

// Bytes of a known state, to be moved to `head`. Empty if no chain of deltas leads there.
struct KnownState {
  std::unique_ptr<Checkpoint> kept;
  std::unique_ptr<StateBytes> bytes;
  std::vector<Sum128> sums;
  std::string root;
  std::string description;
  std::optional<WayBack> back;
};
Result<std::optional<Base>> base_from_known(Bucket& bucket, const Commit& head,
                                            std::span<const TensorInfo> tensors, KnownState known,
                                            const BaseOptions& options);

// The bucket's own anchor and chain. With `prove`, the anchor's SHA-256 is checked first, which
// reads it once more; rebuild() can check it while it reads.
Result<Base> base_from_bucket(Bucket& bucket, const Commit& head,
                              std::span<const TensorInfo> tensors, bool prove,
                              const BaseOptions& options);

}  // namespace siltstone
