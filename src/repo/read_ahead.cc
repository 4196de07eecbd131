#include "repo/read_ahead.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "base/parallel.h"
#include "base/try.h"

namespace siltstone {
namespace {

constexpr uint64_t kMinPieceBytes = uint64_t{256} << 10;

class Streaming {
 public:
  Streaming(Store& store, std::span<const Streamed> objects, const ReadAhead& ahead,
            const PieceSink& sink)
      : store_(store), objects_(objects), ahead_(ahead), sink_(sink), lanes_(objects.size()) {
    for (size_t i = 0; i < objects.size(); ++i) {
      const uint64_t length = objects[i].object->length_bytes;
      for (uint64_t offset = 0; offset < length; offset += ahead.piece_bytes)
        pieces_.push_back({i, offset, std::min(ahead.piece_bytes, length - offset)});
    }
    handed_on_.resize(pieces_.size());
  }

  Status run() {
    return parallel_for(pieces_.size(), std::max(1U, ahead_.requests),
                        [this](uint64_t number, unsigned) {
                          Stopping stopping(*this);
                          Status status = fetch(number);
                          if (status) stopping.calm();
                          return status;
                        });
  }

 private:
  struct Piece {
    size_t object;
    uint64_t offset_bytes;
    uint64_t length_bytes;
  };
  struct Arrived {
    size_t number = 0;
    std::vector<std::byte> own;
    ByteSpan bytes;
  };
  // An object: where its sink stands, and what has arrived out of turn.
  struct Lane {
    uint64_t next_bytes = 0;
    bool busy = false;
    std::map<uint64_t, Arrived> arrived;
  };
  // Wakes those who wait when a piece fails, by error or exception.
  class Stopping {
   public:
    explicit Stopping(Streaming& streaming) : streaming_(streaming) {}
    ~Stopping() {
      if (!calm_) streaming_.stop();
    }
    Stopping(const Stopping&) = delete;
    Stopping& operator=(const Stopping&) = delete;
    void calm() { calm_ = true; }

   private:
    Streaming& streaming_;
    bool calm_ = false;
  };

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    moved_.notify_all();
  }

  // Pieces are begun in order, so the lowest that was not handed on is always under way.
  bool may_begin(uint64_t number) const { return number < lowest_ + 2 * ahead_.requests; }

  Status fetch(uint64_t number) {
    {
      std::unique_lock lock(mutex_);
      moved_.wait(lock, [&] { return stopped_ || may_begin(number); });
      if (stopped_) return {};
    }
    const Piece& piece = pieces_[number];
    const Streamed& streamed = objects_[piece.object];
    Arrived arrived;
    arrived.number = number;
    MutByteSpan out;
    if (streamed.into.empty()) {
      arrived.own.resize(piece.length_bytes);
      out = arrived.own;
    } else {
      out = streamed.into.subspan(piece.offset_bytes, piece.length_bytes);
    }
    arrived.bytes = out;
    Status read = store_.read(streamed.object->key, piece.offset_bytes, out);
    return in_context(read ? hand_on(piece, std::move(arrived)) : promised(std::move(read).error()),
                      streamed.context);
  }

  // Whoever brings the piece that an object waits for hands on all that can follow it.
  Status hand_on(const Piece& piece, Arrived arrived) {
    Lane& lane = lanes_[piece.object];
    std::unique_lock lock(mutex_);
    lane.arrived.emplace(piece.offset_bytes, std::move(arrived));
    if (lane.busy || stopped_) return {};
    lane.busy = true;
    Status status;
    while (!stopped_ && !lane.arrived.empty() && lane.arrived.begin()->first == lane.next_bytes) {
      Arrived next = std::move(lane.arrived.begin()->second);
      lane.arrived.erase(lane.arrived.begin());
      lock.unlock();
      status = sink_(piece.object, pieces_[next.number].offset_bytes, next.bytes);
      next.own = {};
      lock.lock();
      stopped_ = stopped_ || !status;
      lane.next_bytes += next.bytes.size();
      handed_on_[next.number] = true;
      while (lowest_ < handed_on_.size() && handed_on_[lowest_]) ++lowest_;
      moved_.notify_all();
    }
    lane.busy = false;
    return status;
  }

  Store& store_;
  const std::span<const Streamed> objects_;
  const ReadAhead& ahead_;
  const PieceSink& sink_;
  std::vector<Piece> pieces_;
  std::mutex mutex_;
  std::condition_variable moved_;
  bool stopped_ = false;
  uint64_t lowest_ = 0;  // piece that was not handed on
  std::vector<bool> handed_on_;
  std::vector<Lane> lanes_;
};

}  // namespace

ReadAhead ReadAhead::of(const Store& store, uint64_t budget_bytes) {
  ReadAhead ahead;
  const uint64_t fit = std::max<uint64_t>(1, budget_bytes / (2 * kMinPieceBytes));
  ahead.requests =
      static_cast<unsigned>(std::min<uint64_t>(std::max(1U, store.traits().transfers), fit));
  ahead.piece_bytes =
      std::clamp(budget_bytes / (2 * ahead.requests), kMinPieceBytes, ahead.piece_bytes);
  return ahead;
}

Status stream_objects(Store& store, std::span<const Streamed> objects, const ReadAhead& ahead,
                      const PieceSink& sink) {
  return Streaming(store, objects, ahead, sink).run();
}

Status stream_object(Store& store, const ObjectRef& object, const ReadAhead& ahead,
                     const std::function<Status(uint64_t offset_bytes, ByteSpan piece)>& sink) {
  const Streamed one{&object};
  return stream_objects(store, {&one, 1}, ahead, [&sink](size_t, uint64_t offset, ByteSpan piece) {
    return sink(offset, piece);
  });
}

Status in_context(Status status, std::string_view context) {
  return context.empty() ? status : std::move(status).in(context);
}

Error promised(Error error) {
  if (error.code == Code::kNotFound) error.code = Code::kCorrupt;
  return error;
}

}  // namespace siltstone
