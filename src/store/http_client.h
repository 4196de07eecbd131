// HTTP requests, blocking, one connection each: libcurl behind a face that does not show it.
//
// Connections are kept and used again. What a request asks for is its caller's business: nothing is
// tried again here, and no redirect is followed.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "siltstone/store.h"
#include "store/s3_signature.h"

namespace siltstone {

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case; the last counts
  std::string body;      // what the sink did not take, at most kMaxHttpText
  std::string location;  // where a redirect leads, as a whole URL
  // A kept connection had been closed at the other end, so the request was sent again on a new one:
  // the server may have got it twice.
  bool sent_twice = false;

  // Empty if the server did not send it.
  std::string_view header(std::string_view name) const;
};

// What a reply may have of text, be it headers, a listing or an error.
inline constexpr size_t kMaxHttpText = size_t{8} << 20;

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, PUT or DELETE
  std::string url;             // percent-encoded: sent as it stands
  HttpFields headers;
  const ByteSource* body = nullptr;  // of a PUT
  // Takes the body of a reply of status 200 or 206 in order, after its headers are known; an error
  // of it ends the transfer and is what send() returns. Absent: the body is kept in the reply.
  std::function<Status(const HttpReply&, ByteSpan)> sink;
  double patience_seconds = 0;              // the server may be silent for so much longer
  const std::atomic<bool>* stop = nullptr;  // ends the transfer with kCancelled within a second
};

// Why there is no reply.
struct HttpFailure {
  Error error;         // kUnavailable where another attempt may help
  bool sent = false;   // the server may have got the request, and have acted on it
  bool lasts = false;  // of kUnavailable: other attempts will hardly help, such as an unknown host
  bool own = false;    // the error of the request's sink or body
};

// Threads: many at once; beyond `options.transfers` they wait for each other.
class HttpClient {
 public:
  explicit HttpClient(const StoreOptions& options);
  ~HttpClient();

  // Whatever status the server answers is success.
  Result<HttpReply> send(const HttpRequest& request, HttpFailure* failure);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace siltstone
