// Byte streams of a block payload: stored as they are, or as one zstd frame where that is smaller
// (docs/format/delta_pack.md, "Streams").
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "siltstone/result.h"

namespace siltstone {

// What to look for: nothing (the stream is stored plain), skewed frequencies, or a few repeats too.
enum class Search { kNone, kFrequencies, kRepeats };

// Appends the stored form of `bytes` and returns its length: bytes.size() if stored plain, less if
// it is a zstd frame.
Result<uint32_t> append_stream(ByteSpan bytes, Search search, std::vector<std::byte>* out);

// Gives the stream's room.size() bytes: a view of `stored` if they stand there plain, else of
// `room`, where a frame was expanded into. A frame must be one zstd frame that fills `stored`,
// states its content size, has no content checksum and no dictionary, and a window of at most 2^24
// bytes. `what` names the stream in errors.
Result<ByteSpan> view_stream(ByteSpan stored, MutByteSpan room, const char* what);

}  // namespace siltstone
