// The HTTP side of a relay, over libmicrohttpd: which request gets which reply.
//
// A few threads serve all connections. They never wait for the store: a request that has to is
// parked until its object, its next bytes or its version are there.
#pragma once

#include <microhttpd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "relay/listener.h"
#include "relay/metrics.h"
#include "relay/objects.h"
#include "relay/parking.h"
#include "relay/server_request.h"
#include "relay/upstream.h"
#include "relay/watcher.h"
#include "siltstone/relay.h"

namespace siltstone::relay {

// What requests are answered from; all outlive the server.
struct Rooms {
  Upstream& store;
  Cache& cache;
  Objects& objects;
  Watcher& watcher;
  Metrics& metrics;
};

struct ServerOptions {
  unsigned threads = 2;
  unsigned connections = 1024;
  std::function<void(const RelayAccess&)> on_access;
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const Rooms& rooms, Listener listener,
                                               const ServerOptions& options);
  ~Server();

  const Listener& listener() const { return listener_; }

  // Accepts nothing more, ends what waits, gives the other replies until `deadline`, cuts the rest.
  void stop(std::chrono::steady_clock::time_point deadline);

 private:
  Server(const Rooms& rooms, Listener listener, const ServerOptions& options)
      : rooms_(rooms), listener_(std::move(listener)), options_(options) {}

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url,
                               const char* method, const char* version, const char* upload,
                               size_t* upload_bytes, void** state);
  static void on_completed(void* self, MHD_Connection* connection, void** state,
                           MHD_RequestTerminationCode how);

  MHD_Result begin(MHD_Connection* connection, const char* url, const char* method, void** state);
  MHD_Result answer(ServerRequest& request);
  MHD_Result answer_object(ServerRequest& request);
  MHD_Result wait_for_object(ServerRequest& request);
  MHD_Result give_object(ServerRequest& request, const Entry::View& view);
  MHD_Result give_failure(ServerRequest& request, const Error& error);
  bool hold_for_version(ServerRequest& request);
  MHD_Result give_text(ServerRequest& request, unsigned status, const char* type,
                       const std::string& text);
  MHD_Result give(ServerRequest& request, unsigned status, MHD_Response* response);
  std::string health(unsigned* status) const;

  const Rooms rooms_;
  Listener listener_;
  const ServerOptions options_;
  const std::shared_ptr<Parking> parking_ = std::make_shared<Parking>();
  std::atomic<bool> stopping_{false};
  MHD_Daemon* daemon_ = nullptr;
};

}  // namespace siltstone::relay
