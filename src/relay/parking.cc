#include "relay/parking.h"

#include <microhttpd.h>

namespace siltstone::relay {

Parking::Ticket Parking::park(MHD_Connection* connection) {
  const std::lock_guard lock(mutex_);
  if (closed_) return 0;
  MHD_suspend_connection(connection);
  parked_[++last_] = connection;
  return last_;
}

void Parking::wake(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = parked_.find(ticket);
  if (found == parked_.end()) return;
  MHD_resume_connection(found->second);
  parked_.erase(found);
}

void Parking::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& [ticket, connection] : parked_) MHD_resume_connection(connection);
  parked_.clear();
}

}  // namespace siltstone::relay
