// Connections that wait: taken out of the server's loop until somebody wakes them.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

struct MHD_Connection;

namespace siltstone::relay {

class Parking {
 public:
  using Ticket = uint64_t;

  // Suspends the connection. 0: the server stops, nothing waits any more. To be called where
  // libmicrohttpd allows it: from its access handler and content reader.
  Ticket park(MHD_Connection* connection);
  // Resumes it, once; a ticket that was used already does nothing. Threads: any.
  void wake(Ticket ticket);
  // Wakes everybody, for good.
  void close();

 private:
  std::mutex mutex_;
  std::unordered_map<Ticket, MHD_Connection*> parked_;  // guarded by mutex_
  Ticket last_ = 0;                                     // guarded by mutex_
  bool closed_ = false;                                 // guarded by mutex_
};

}  // namespace siltstone::relay
