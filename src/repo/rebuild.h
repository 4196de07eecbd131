// A version's bytes in a store, opened for reading: anchor and chain, proven as they are read.
#pragma once

#include <memory>
#include <vector>

#include "repo/base.h"

namespace siltstone {

// Where the tensors of a state lie in the files that hold them.
struct FilePlace {
  size_t file = 0;
  uint64_t offset_bytes = 0;
};
std::vector<FilePlace> file_places(const Schema& schema);

// Sink of rebuild(): one block of a tensor's final words. Called from many threads.
using BlockSink =
    std::function<Status(size_t tensor, uint64_t offset_bytes, ByteSpan words, bool changed)>;

struct RebuildOptions {
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Meter* meter = nullptr;  // which expects the tensors' bytes already; borrowed
  // Called from many threads: what one link added to a tensor's sum.
  std::function<void(size_t link, size_t tensor, const Sum128& change)> on_link = {};
  // Is told what the chain's last link changed; it may be null.
  WayBackWriter* back = nullptr;
  // The reader's base, where it is a plain anchor's: it is read in the order in which it lies.
  const AnchorBytes* anchor = nullptr;
  // Proves the anchor's objects by their SHA-256 on the way; REQUIRES: all tensors are read. The
  // sink sees words before that is known, so what it makes must not be used after a failure.
  bool prove_anchor = false;
};

struct Rebuilt {
  std::vector<Sum128> before;  // of the base's own bytes, tensors that were read
  std::vector<Sum128> after;
};

// Reads the given tensors of a state through `reader` and hands every block to `sink`, in no order,
// those first whose part of the chain is here first. All of the chain is proven when this returns
// without error.
Result<Rebuilt> rebuild(const StateReader& reader, const std::vector<size_t>& tensors,
                        const RebuildOptions& options, const BlockSink& sink);

// All tensors of a version from the bucket alone; proven when this returns without error, not while
// `sink` is called.
struct ProvenVersion {
  std::vector<Sum128> sums;
  uint64_t fetched_bytes = 0;
};
Result<ProvenVersion> rebuild_version(Bucket& bucket, const Commit& commit, const Schema& schema,
                                      const RebuildOptions& options, const BlockSink& sink);

}  // namespace siltstone
