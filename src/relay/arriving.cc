#include "relay/arriving.h"

#include <microhttpd.h>

#include <algorithm>

namespace siltstone::relay {
namespace {

// Of memory for each reply that is being sent, and of what one call of the system sends.
// libmicrohttpd's own way, sendfile, takes 128 KiB before it turns to the next connection: two
// thirds of the speed.
constexpr uint64_t kBlockBytes = uint64_t{512} << 10;

class Body {
 public:
  Body(ServerRequest& request, std::shared_ptr<const File> file, const ByteRange& range,
       std::shared_ptr<Parking> parking, Metrics& metrics)
      : request_(request),
        entry_(request.found.entry),
        file_(std::move(file)),
        range_(range),
        parking_(std::move(parking)),
        metrics_(metrics) {}

  static ssize_t read(void* self, uint64_t position, char* out, size_t room) {
    return static_cast<Body*>(self)->read_at(position, {reinterpret_cast<std::byte*>(out), room});
  }
  static void release(void* self) { delete static_cast<Body*>(self); }

 private:
  ssize_t read_at(uint64_t position, MutByteSpan out) {
    request_.count_waiting(nullptr);
    const Entry::View view = entry_->view();
    if (view.state == Entry::State::kFailed || !file_) return MHD_CONTENT_READER_END_WITH_ERROR;
    const uint64_t at = range_.offset_bytes + position;
    if (at >= view.available_bytes) return wait_beyond(at);
    const uint64_t ready = std::min(view.available_bytes - at, range_.length_bytes - position);
    out = out.first(std::min<uint64_t>(out.size(), ready));
    if (!file_->read_at(at, out)) return MHD_CONTENT_READER_END_WITH_ERROR;
    request_.streamed_bytes += out.size();
    return static_cast<ssize_t>(out.size());
  }

  ssize_t wait_beyond(uint64_t available_bytes) {
    const Parking::Ticket ticket = parking_->park(request_.connection);
    if (ticket == 0) return MHD_CONTENT_READER_END_WITH_ERROR;
    request_.count_waiting(&metrics_.waiting_for_bytes);
    const auto wake = [parking = parking_, ticket] { parking->wake(ticket); };
    if (!entry_->when(Entry::kLengthKnown + available_bytes + 1, wake)) wake();
    return 0;
  }

  ServerRequest& request_;
  const std::shared_ptr<Entry> entry_;
  const std::shared_ptr<const File> file_;
  const ByteRange range_;
  const std::shared_ptr<Parking> parking_;
  Metrics& metrics_;
};

}  // namespace

MHD_Response* arriving_response(ServerRequest& request, std::shared_ptr<const File> file,
                                const ByteRange& range, std::shared_ptr<Parking> parking,
                                Metrics& metrics) {
  auto body = std::make_unique<Body>(request, std::move(file), range, std::move(parking), metrics);
  MHD_Response* response = MHD_create_response_from_callback(
      range.length_bytes, std::clamp(range.length_bytes, uint64_t{1}, kBlockBytes), &Body::read,
      body.get(), &Body::release);
  if (response != nullptr) (void)body.release();
  return response;
}

}  // namespace siltstone::relay
