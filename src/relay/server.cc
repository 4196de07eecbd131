#include "relay/server.h"

#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/json.h"
#include "relay/arriving.h"
#include "relay/request.h"
#include "relay/server_request.h"

namespace siltstone::relay {
namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kIdleSeconds = 60;
// Of a connection's headers, both ways.
constexpr size_t kConnectionBytes = size_t{16} << 10;
// What is smaller is sent with its headers in one call.
constexpr uint64_t kSmallBytes = uint64_t{64} << 10;
constexpr uint64_t kMaxWaitSeconds = 60;
// libmicrohttpd 0.9.75 takes 128 events at a time; when there are as many, it sleeps before it
// looks at them. A thread that has fewer connections never gets there.
constexpr unsigned kConnectionsPerThread = 120;

constexpr const char* kText = "text/plain; charset=utf-8";
constexpr const char* kJson = "application/json";
constexpr const char* kBytes = "application/octet-stream";
constexpr const char* kMetrics = "text/plain; version=0.0.4; charset=utf-8";

// Names hold no percent signs: what is escaped stays so, and is refused.
size_t keep_escapes(void*, MHD_Connection*, char* text) {
  return std::strlen(text);
}

const char* header(MHD_Connection* connection, const char* name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

bool has_body(MHD_Connection* connection) {
  const char* length = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
  return header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING) != nullptr ||
         (length != nullptr && std::string_view(length) != "0");
}

unsigned status_of(Code code) {
  switch (code) {
    case Code::kNotFound:
      return MHD_HTTP_NOT_FOUND;
    case Code::kCorrupt:
    case Code::kMismatch:
    case Code::kUnsupported:
    case Code::kPermission:
      return MHD_HTTP_BAD_GATEWAY;
    case Code::kUnavailable:
    case Code::kIo:
    case Code::kCancelled:
      return MHD_HTTP_SERVICE_UNAVAILABLE;
    default:
      return MHD_HTTP_INTERNAL_SERVER_ERROR;
  }
}

std::string client_of(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  char host[NI_MAXHOST] = "";
  if (info == nullptr || info->client_addr == nullptr) return host;
  const socklen_t length =
      info->client_addr->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  ::getnameinfo(info->client_addr, length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return host;
}

const char* type_of(const ObjectName& name) {
  return name.text.ends_with(".json") ? kJson : kBytes;
}

MHD_Response* copied(const std::string& text) {
  return MHD_create_response_from_buffer(text.size(), const_cast<char*>(text.data()),
                                         MHD_RESPMEM_MUST_COPY);
}

// All of it with the headers. Null if the file cannot be read.
MHD_Response* small_response(const File& file, const ByteRange& range) {
  auto* bytes = static_cast<std::byte*>(std::malloc(std::max<uint64_t>(range.length_bytes, 1)));
  if (bytes == nullptr) return nullptr;
  if (file.read_at(range.offset_bytes, {bytes, range.length_bytes})) {
    return MHD_create_response_from_buffer(range.length_bytes, bytes, MHD_RESPMEM_MUST_FREE);
  }
  std::free(bytes);
  return nullptr;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const Rooms& rooms, Listener listener,
                                              const ServerOptions& options) {
  std::unique_ptr<Server> server(new Server(rooms, std::move(listener), options));
  const auto least = static_cast<unsigned>(ceil_div(options.connections, kConnectionsPerThread));
  const unsigned threads = std::min(std::max(options.threads, least), options.connections);
  // libmicrohttpd closes what it is given.
  const int fd = ::fcntl(server->listener_.fd(), F_DUPFD_CLOEXEC, 0);
  server->daemon_ = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr, nullptr, on_request,
      server.get(), MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, threads,
      MHD_OPTION_CONNECTION_LIMIT, options.connections, MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes, MHD_OPTION_NOTIFY_COMPLETED,
      on_completed, server.get(), MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, nullptr,
      MHD_OPTION_END);
  if (server->daemon_ == nullptr) {
    return Error{Code::kIo, "cannot serve at " + server->listener_.url() +
                                ": the system refused threads or descriptors"};
  }
  return server;
}

Server::~Server() {
  stop(Clock::now());
}

void Server::stop(Clock::time_point deadline) {
  if (daemon_ == nullptr) return;
  stopping_ = true;
  const MHD_socket listening = MHD_quiesce_daemon(daemon_);
  ::shutdown(listener_.fd(), SHUT_RDWR);
  parking_->close();
  while (rooms_.metrics.active_requests > 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  MHD_stop_daemon(daemon_);
  daemon_ = nullptr;
  if (listening != MHD_INVALID_SOCKET) ::close(listening);
}

MHD_Result Server::on_request(void* self, MHD_Connection* connection, const char* url,
                              const char* method, const char*, const char*, size_t* upload_bytes,
                              void** state) {
  Server& server = *static_cast<Server*>(self);
  if (*state == nullptr) return server.begin(connection, url, method, state);
  if (*upload_bytes != 0) return MHD_NO;  // begin() refused it
  return server.answer(*static_cast<ServerRequest*>(*state));
}

void Server::on_completed(void* self, MHD_Connection*, void** state,
                          MHD_RequestTerminationCode how) {
  const Server& server = *static_cast<Server*>(self);
  Metrics& metrics = server.rooms_.metrics;
  if (*state == nullptr) return;
  const std::unique_ptr<ServerRequest> request(static_cast<ServerRequest*>(*state));
  *state = nullptr;
  request->count_waiting(nullptr);
  const bool whole = how == MHD_REQUEST_TERMINATED_COMPLETED_OK;
  if (request->status != 0) {
    metrics.served_bytes += whole ? request->body_bytes : request->streamed_bytes;
    if (!whole) ++metrics.replies_cut;
    if (server.options_.on_access) {
      const std::chrono::duration<double> taken = Clock::now() - request->begun;
      server.options_.on_access({client_of(request->connection), request->method, request->path,
                                 request->status, request->body_bytes, whole, taken.count()});
    }
  }
  --metrics.active_requests;
}

MHD_Result Server::begin(MHD_Connection* connection, const char* url, const char* method,
                         void** state) {
  auto owned = std::make_unique<ServerRequest>();
  ServerRequest& request = *owned;
  request.connection = connection;
  request.method = method;
  request.path = url;
  request.begun = Clock::now();
  request.head = request.method == MHD_HTTP_METHOD_HEAD;
  *state = owned.release();  // on_completed takes it
  ++rooms_.metrics.active_requests;
  // Replies from here close the connection, so that no body is read.
  if (!request.head && request.method != MHD_HTTP_METHOD_GET) {
    return give_text(request, MHD_HTTP_METHOD_NOT_ALLOWED, kText, "only GET and HEAD\n");
  }
  if (has_body(connection)) {
    return give_text(request, MHD_HTTP_BAD_REQUEST, kText, "a request here has no body\n");
  }
  return MHD_YES;
}

MHD_Result Server::answer(ServerRequest& request) {
  request.count_waiting(nullptr);
  if (request.name) return answer_object(request);
  if (request.path == "/metrics") {
    return give_text(request, MHD_HTTP_OK, kMetrics,
                     format_metrics(rooms_.metrics, rooms_.cache.use()));
  }
  if (request.path == "/healthz") {
    unsigned status = MHD_HTTP_OK;
    const std::string text = health(&status);
    return give_text(request, status, kJson, text);
  }
  const std::string_view name = std::string_view(request.path).substr(1);
  if (!is_object_name(name)) {
    return give_text(request, MHD_HTTP_BAD_REQUEST, kText, "not an object name\n");
  }
  request.name = parse_object_name(name);
  if (!request.name) {
    return give_text(request, MHD_HTTP_NOT_FOUND, kText, "no object that a relay can prove\n");
  }
  return answer_object(request);
}

MHD_Result Server::answer_object(ServerRequest& request) {
  if (stopping_) return give_failure(request, {Code::kUnavailable, "the relay is stopping"});
  if (!request.found.entry) request.found = rooms_.objects.open(*request.name);
  const Entry::View view = request.found.entry->view();
  switch (view.state) {
    case Entry::State::kLooking:
      return wait_for_object(request);
    case Entry::State::kFailed:
      if (view.error.code == Code::kNotFound && hold_for_version(request)) return MHD_YES;
      return give_failure(request, view.error);
    case Entry::State::kArriving:
      return give_object(request, view);
    case Entry::State::kWhole:
      break;
  }
  if (view.content || request.found.file) return give_object(request, view);
  // It became whole while this request waited, and is held by it: only open it.
  Cache::Found again = rooms_.objects.open(*request.name);
  request.found = std::move(again);
  if (request.found.file) return give_object(request, view);
  return wait_for_object(request);
}

MHD_Result Server::wait_for_object(ServerRequest& request) {
  const Parking::Ticket ticket = parking_->park(request.connection);
  if (ticket == 0) return give_failure(request, {Code::kUnavailable, "the relay is stopping"});
  request.count_waiting(&rooms_.metrics.waiting_for_bytes);
  const auto wake = [parking = parking_, ticket] { parking->wake(ticket); };
  if (!request.found.entry->when(Entry::kLengthKnown, wake)) wake();
  return MHD_YES;
}

// Whether the request is held until its version appears.
bool Server::hold_for_version(ServerRequest& request) {
  const ObjectName& name = *request.name;
  if (name.kind != NameKind::kCommit || request.waited) return false;
  const auto seconds = preferred_wait_seconds(header(request.connection, "Prefer"));
  if (!seconds || *seconds == 0) return false;
  const std::optional<uint64_t> newest = rooms_.objects.absences().newest(name.branch);
  if (newest && name.seq <= *newest) return false;  // it will never appear
  const Parking::Ticket ticket = parking_->park(request.connection);
  if (ticket == 0) return false;
  request.waited = true;
  request.found = {};
  request.count_waiting(&rooms_.metrics.waiting_for_version);
  const auto wake = [parking = parking_, ticket] { parking->wake(ticket); };
  const auto deadline = request.begun + std::chrono::seconds(std::min(*seconds, kMaxWaitSeconds));
  if (!rooms_.watcher.wait(name.branch, name.seq, deadline, wake)) wake();
  return true;
}

MHD_Result Server::give_object(ServerRequest& request, const Entry::View& view) {
  const uint64_t length = view.length_bytes;
  const RangeAnswer answer =
      answer_range(header(request.connection, MHD_HTTP_HEADER_RANGE), length);
  if (answer.kind == RangeAnswer::Kind::kOutside) {
    MHD_Response* response = copied("");
    const std::string range = "bytes */" + std::to_string(length);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, range.c_str());
    return give(request, MHD_HTTP_RANGE_NOT_SATISFIABLE, response);
  }
  const ByteRange& range = answer.range;
  MHD_Response* response;
  if (view.content && !request.head) {
    response = copied(view.content->substr(range.offset_bytes, range.length_bytes));
  } else if (request.found.file && !request.head && range.length_bytes <= kSmallBytes) {
    response = small_response(*request.found.file, range);
  } else {
    const auto& file = request.found.file ? request.found.file : view.file;
    response = arriving_response(request, file, range, parking_, rooms_.metrics);
  }
  if (response == nullptr) {
    return give_failure(request, {Code::kUnavailable, "the cache cannot be read"});
  }
  request.body_bytes = request.head ? 0 : range.length_bytes;
  const bool hint = request.name->kind == NameKind::kHead;
  MHD_add_response_header(response, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type_of(*request.name));
  MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL,
                          hint ? "no-cache" : "max-age=31536000, immutable");
  if (answer.kind == RangeAnswer::Kind::kWhole) return give(request, MHD_HTTP_OK, response);
  const uint64_t last = range.offset_bytes + range.length_bytes - 1;
  const std::string text = "bytes " + std::to_string(range.offset_bytes) + "-" +
                           std::to_string(last) + "/" + std::to_string(length);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, text.c_str());
  return give(request, MHD_HTTP_PARTIAL_CONTENT, response);
}

MHD_Result Server::give_failure(ServerRequest& request, const Error& error) {
  return give_text(request, status_of(error.code), kText, error.message + "\n");
}

MHD_Result Server::give_text(ServerRequest& request, unsigned status, const char* type,
                             const std::string& text) {
  MHD_Response* response = copied(text);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (status == MHD_HTTP_SERVICE_UNAVAILABLE) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
  }
  if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  }
  return give(request, status, response);
}

MHD_Result Server::give(ServerRequest& request, unsigned status, MHD_Response* response) {
  if (stopping_) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  }
  // Heeded also where there was nothing to wait for: who asks learns that it need not poll.
  if (request.name && request.name->kind == NameKind::kCommit &&
      preferred_wait_seconds(header(request.connection, "Prefer"))) {
    MHD_add_response_header(response, "Preference-Applied", "wait");
  }
  request.status = status;
  ++rooms_.metrics.replies[status / 100];
  const MHD_Result queued = MHD_queue_response(request.connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

std::string Server::health(unsigned* status) const {
  const std::optional<Error> trouble = rooms_.store.trouble();
  Json json = {{"status", trouble ? "unavailable" : "ok"}, {"store", rooms_.store.url()}};
  if (trouble) {
    *status = MHD_HTTP_SERVICE_UNAVAILABLE;
    json["reason"] = trouble->message;
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace siltstone::relay
