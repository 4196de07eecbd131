// Objects read in pieces, with many requests under way where the store is worth it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "repo/commit.h"
#include "siltstone/store.h"

namespace siltstone {

// How far a store is read ahead.
struct ReadAhead {
  unsigned requests = 1;  // at once
  uint64_t piece_bytes = uint64_t{4} << 20;

  // As many requests as the store is worth, the pieces that lie in memory within `budget_bytes`.
  static ReadAhead of(const Store& store, uint64_t budget_bytes);
};

// An object to read from its first byte to its last.
struct Streamed {
  const ObjectRef* object = nullptr;
  MutByteSpan into = {};          // where its bytes stay; empty: they are only handed on
  std::string_view context = {};  // of errors
};

// A piece of an object. Pieces of one object come in order and one at a time; pieces of different
// objects may come at the same time, from other threads.
using PieceSink = std::function<Status(size_t object, uint64_t offset_bytes, ByteSpan piece)>;

// Reads the objects, whose pieces together fill the window, in the order of the span. At most
// 2 * requests pieces lie in memory. The first error wins and ends all.
Status stream_objects(Store& store, std::span<const Streamed> objects, const ReadAhead& ahead,
                      const PieceSink& sink);

// Of one object.
Status stream_object(Store& store, const ObjectRef& object, const ReadAhead& ahead,
                     const std::function<Status(uint64_t offset_bytes, ByteSpan piece)>& sink);

// `status`, its error with the context in front, if there is one.
Status in_context(Status status, std::string_view context);

// Error of a read of something a commit promises: absence is corruption.
Error promised(Error error);

}  // namespace siltstone
