#include "delta/codecs/stream.h"

// For ZSTD_c_literalCompressionMode, without which the fastest levels do not code literals at all.
// A zstd that does not know it refuses it, and streams are stored by the other parameters then.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/try.h"
#include "delta/codecs/guess.h"

namespace siltstone {
namespace {

// Streams hold hardly any repeats, only skewed bytes: matches shorter than seven bytes cost more
// than they save, and a small table of candidates stays in the first-level cache. Measured on
// training deltas, this is smaller and faster than every plain level.
constexpr std::pair<ZSTD_cParameter, int> kRepeats[] = {
    {ZSTD_c_compressionLevel, 1}, {ZSTD_c_minMatch, 7}, {ZSTD_c_hashLog, 10}};
// Huffman codes of all bytes and hardly any search.
constexpr std::pair<ZSTD_cParameter, int> kFrequencies[] = {
    {ZSTD_c_compressionLevel, -1000}, {ZSTD_c_literalCompressionMode, ZSTD_ps_enable}};
constexpr uint64_t kMaxWindowBytes = uint64_t{1} << 24;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// Parameters stay with a context.
ZSTD_CCtx* make_compressor(std::span<const std::pair<ZSTD_cParameter, int>> parameters) {
  ZSTD_CCtx* made = ZSTD_createCCtx();
  if (made == nullptr) return nullptr;
  // A parameter that this zstd lacks costs bytes, nothing else.
  for (const auto& [parameter, value] : parameters)
    (void)ZSTD_CCtx_setParameter(made, parameter, value);
  return made;
}

ZSTD_CCtx* compressor(Search search) {
  using Context = std::unique_ptr<ZSTD_CCtx, FreeContext>;
  thread_local const Context repeats(make_compressor(kRepeats));
  thread_local const Context frequencies(make_compressor(kFrequencies));
  return search == Search::kFrequencies && frequencies != nullptr ? frequencies.get()
                                                                  : repeats.get();
}

ZSTD_DCtx* decompressor() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  return context.get();
}

Error corrupt(const char* what, const std::string& problem) {
  return {Code::kCorrupt, std::string(what) + " stream: " + problem};
}

// The window a frame asks for, from its first bytes (RFC 8878, 3.1.1.1). Frames of a single
// segment, which have no window field, need their content size. REQUIRES: the frame's header was
// accepted by zstd.
uint64_t window_bytes(ByteSpan frame, uint64_t content_bytes) {
  const auto descriptor = static_cast<uint8_t>(frame[4]);
  const bool single_segment = (descriptor & 0x20) != 0;
  if (single_segment) return content_bytes;
  const auto window = static_cast<uint8_t>(frame[5]);
  const uint64_t base = uint64_t{1} << (10 + (window >> 3));
  return base + (base >> 3) * (window & 7);
}

Status check_frame(ByteSpan frame, uint64_t content_bytes, const char* what) {
  constexpr size_t kShortestFrame = 9;
  constexpr uint32_t kFrameMagic = 0xFD2FB528;
  if (frame.size() < kShortestFrame || load_le<uint32_t>(frame.data()) != kFrameMagic)
    return corrupt(what, "expected a zstd frame, found other bytes");
  const unsigned long long stated = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (stated == ZSTD_CONTENTSIZE_ERROR) return corrupt(what, "broken zstd frame header");
  if (stated == ZSTD_CONTENTSIZE_UNKNOWN)
    return corrupt(what, "zstd frame does not state its content size");
  if (stated != content_bytes)
    return corrupt(what, "zstd frame holds " + std::to_string(stated) + " bytes, expected " +
                             std::to_string(content_bytes));
  if ((static_cast<uint8_t>(frame[4]) & 3) != 0)
    return corrupt(what, "zstd frame asks for a dictionary");
  if ((static_cast<uint8_t>(frame[4]) & 4) != 0)
    return corrupt(what, "zstd frame carries a content checksum, which streams must not");
  const uint64_t window = window_bytes(frame, content_bytes);
  if (window > kMaxWindowBytes)
    return corrupt(what, "zstd window of " + std::to_string(window) + " bytes, at most " +
                             std::to_string(kMaxWindowBytes) + " allowed");
  const size_t frame_bytes = ZSTD_findFrameCompressedSize(frame.data(), frame.size());
  if (ZSTD_isError(frame_bytes)) return corrupt(what, "broken zstd frame");
  if (frame_bytes != frame.size())
    return corrupt(what, "zstd frame of " + std::to_string(frame_bytes) + " bytes in a stream of " +
                             std::to_string(frame.size()));
  return {};
}

}  // namespace

Result<uint32_t> append_stream(ByteSpan bytes, Search search, std::vector<std::byte>* out) {
  const bool hopeless = bytes.empty() || search == Search::kNone ||
                        (search == Search::kFrequencies && looks_random(bytes));
  if (!hopeless) {
    ZSTD_CCtx* context = compressor(search);
    if (context == nullptr) return Error{Code::kInternal, "zstd gave no compression context"};
    thread_local std::vector<std::byte> frame;  // as large as the longest stream
    if (frame.size() < bytes.size()) frame.resize(bytes.size());
    // Room for one byte less than plain: zstd gives up as soon as it cannot win.
    const size_t stored =
        ZSTD_compress2(context, frame.data(), bytes.size() - 1, bytes.data(), bytes.size());
    if (ZSTD_isError(stored) == 0) {
      out->insert(out->end(), frame.data(), frame.data() + stored);
      return static_cast<uint32_t>(stored);
    }
  }
  out->insert(out->end(), bytes.begin(), bytes.end());
  return static_cast<uint32_t>(bytes.size());
}

Result<ByteSpan> view_stream(ByteSpan stored, MutByteSpan room, const char* what) {
  if (stored.size() == room.size()) return stored;
  if (stored.size() > room.size())
    return corrupt(what, std::to_string(stored.size()) + " bytes stored for " +
                             std::to_string(room.size()) + " bytes of content");
  SILT_TRY(check_frame(stored, room.size(), what));
  ZSTD_DCtx* context = decompressor();
  if (context == nullptr) return Error{Code::kInternal, "zstd gave no decompression context"};
  const size_t written =
      ZSTD_decompressDCtx(context, room.data(), room.size(), stored.data(), stored.size());
  if (ZSTD_isError(written))
    return corrupt(what, std::string("zstd: ") + ZSTD_getErrorName(written));
  if (written != room.size())
    return corrupt(what, "zstd wrote " + std::to_string(written) + " bytes, expected " +
                             std::to_string(room.size()));
  return ByteSpan(room);
}

}  // namespace siltstone
