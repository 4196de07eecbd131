#include "relay/stream.h"

#include <algorithm>
#include <deque>
#include <future>
#include <vector>

#include "base/try.h"

namespace siltstone::relay {
namespace {

struct Piece {
  Status status;
  std::vector<std::byte> bytes;
};

Piece read_piece(Store& store, const std::string& name, uint64_t offset_bytes,
                 uint64_t length_bytes) {
  Piece piece;
  piece.bytes.resize(length_bytes);
  piece.status = store.read(name, offset_bytes, piece.bytes);
  return piece;
}

}  // namespace

Status stream_object(Store& store, const std::string& name, uint64_t length_bytes,
                     const StreamOptions& options, const std::function<Status(ByteSpan)>& take) {
  std::deque<std::future<Piece>> ahead;  // leaving waits for those that run
  const auto how = options.transfers > 1 ? std::launch::async : std::launch::deferred;
  uint64_t begun = 0;
  while (begun < length_bytes || !ahead.empty()) {
    while (begun < length_bytes && ahead.size() < std::max(options.transfers, 1U)) {
      const uint64_t count = std::min(options.piece_bytes, length_bytes - begun);
      ahead.push_back(std::async(how, read_piece, std::ref(store), name, begun, count));
      begun += count;
    }
    const Piece piece = ahead.front().get();
    ahead.pop_front();
    SILT_TRY(piece.status);
    SILT_TRY(take(piece.bytes));
  }
  return {};
}

}  // namespace siltstone::relay
