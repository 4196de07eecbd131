// Names, digests and frames in the folders of slime's disk deltas.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "siltstone/result.h"

// zstd's own type.
struct ZSTD_DCtx_s;

namespace siltstone {

inline constexpr std::string_view kSlimePrefix = "weight_v";
inline constexpr std::string_view kSlimeIndex = "model.safetensors.index.json";
inline constexpr std::string_view kSlimeXor = "xor";
inline constexpr std::string_view kSlimeOverwrite = "overwrite";

// "weight_v000007"
std::string slime_name(uint64_t number);

// The digests that a tensor may be proven by.
std::string xxh3_128_hex(ByteSpan bytes);
std::string adler32_hex(ByteSpan bytes);

// One zstd frame read from front to back, never more of it than is asked for. Its window is
// bounded, so memory is too, whatever its header says. Borrows `frame`.
class FrameReader {
 public:
  explicit FrameReader(ByteSpan frame);
  ~FrameReader();
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;

  // The next out.size() bytes; kCorrupt if the frame is damaged or has fewer.
  Status read(MutByteSpan out);
  // Passes over bytes.
  Status skip(uint64_t bytes);
  // kCorrupt unless the frame ends here, and nothing follows it.
  Status finish();

 private:
  ZSTD_DCtx_s* context_;
  ByteSpan frame_;
  uint64_t given_bytes_ = 0;
  size_t at_ = 0;
  bool ended_ = false;
};

// One frame at the level that slime writes.
Result<std::vector<std::byte>> compress_frame(ByteSpan bytes);

}  // namespace siltstone
