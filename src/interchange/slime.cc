#include "interchange/slime.h"

#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <new>

#include "base/try.h"
#include "interchange/foreign_files.h"

namespace siltstone {
namespace {

constexpr int kLevel = 1;
constexpr int kMaxWindowLog = 27;  // 128 MiB; level 1 needs 512 KiB
constexpr uint64_t kSkipBytes = uint64_t{64} << 10;

}  // namespace

std::string slime_name(uint64_t number) {
  return std::string(kSlimePrefix) + six_digits(number);
}

std::string xxh3_128_hex(ByteSpan bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  return to_hex(std::as_bytes(std::span(canonical.digest)));
}

// RFC 1950, section 8.2: two sums modulo the largest prime below 65,536. 5,552 bytes is how long
// they fit 32 bits unreduced.
std::string adler32_hex(ByteSpan bytes) {
  constexpr uint32_t kPrime = 65'521;
  constexpr size_t kUnreduced = 5'552;
  uint32_t a = 1;
  uint32_t b = 0;
  while (!bytes.empty()) {
    const ByteSpan part = bytes.first(std::min(kUnreduced, bytes.size()));
    for (const std::byte byte : part) {
      a += std::to_integer<uint32_t>(byte);
      b += a;
    }
    a %= kPrime;
    b %= kPrime;
    bytes = bytes.subspan(part.size());
  }
  return to_hex(uint64_t{b} << 16 | a).substr(8);
}

FrameReader::FrameReader(ByteSpan frame) : context_(ZSTD_createDCtx()), frame_(frame) {
  if (context_ == nullptr) throw std::bad_alloc();
  ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxWindowLog);
}

FrameReader::~FrameReader() {
  ZSTD_freeDCtx(context_);
}

Status FrameReader::read(MutByteSpan out) {
  ZSTD_outBuffer to = {out.data(), out.size(), 0};
  while (to.pos < to.size) {
    ZSTD_inBuffer from = {frame_.data(), frame_.size(), at_};
    const size_t written = to.pos;
    const size_t left = ended_ ? 0 : ZSTD_decompressStream(context_, &to, &from);
    if (ZSTD_isError(left) != 0) {
      return Error{Code::kCorrupt,
                   std::string("the zstd frame is damaged: ") + ZSTD_getErrorName(left)};
    }
    const bool moved = from.pos != at_ || to.pos != written;
    at_ = from.pos;
    ended_ = left == 0;
    if (!moved || (ended_ && to.pos < to.size)) {
      return Error{Code::kCorrupt, "the zstd frame ends after " +
                                       std::to_string(given_bytes_ + to.pos) + " bytes, " +
                                       std::to_string(to.size - to.pos) + " too early"};
    }
  }
  given_bytes_ += out.size();
  return {};
}

Status FrameReader::skip(uint64_t bytes) {
  std::vector<std::byte> scratch(std::min(bytes, kSkipBytes));
  while (bytes > 0) {
    const size_t length = std::min<uint64_t>(bytes, scratch.size());
    SILT_TRY(read(MutByteSpan(scratch).first(length)));
    bytes -= length;
  }
  return {};
}

Status FrameReader::finish() {
  std::array<std::byte, 1> extra;
  while (!ended_) {
    ZSTD_outBuffer to = {extra.data(), extra.size(), 0};
    ZSTD_inBuffer from = {frame_.data(), frame_.size(), at_};
    const size_t left = ZSTD_decompressStream(context_, &to, &from);
    const bool moved = from.pos != at_;
    at_ = from.pos;
    if (to.pos > 0) {
      return Error{Code::kCorrupt, "the zstd frame holds more than the " +
                                       std::to_string(given_bytes_) + " bytes it should"};
    }
    if (ZSTD_isError(left) != 0 || (left != 0 && !moved))
      return Error{Code::kCorrupt, "the zstd frame is damaged or cut off at its end"};
    ended_ = left == 0;
  }
  if (at_ == frame_.size()) return {};
  return Error{Code::kCorrupt,
               std::to_string(frame_.size() - at_) + " bytes follow the zstd frame"};
}

Result<std::vector<std::byte>> compress_frame(ByteSpan bytes) {
  std::vector<std::byte> out(ZSTD_compressBound(bytes.size()));
  const size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), kLevel);
  if (ZSTD_isError(size) != 0)
    return Error{Code::kInternal, std::string("zstd: ") + ZSTD_getErrorName(size)};
  out.resize(size);
  out.shrink_to_fit();
  return out;
}

}  // namespace siltstone
