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

// Writes the stream's out.size() bytes. A frame must be one zstd frame that fills `stored`, states
// its content size, has no content checksum and no dictionary, and a window of at most 2^24 bytes.
// `what` names the stream in errors.
Status read_stream(ByteSpan stored, MutByteSpan out, const char* what);

}  // namespace siltstone
