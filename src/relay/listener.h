// A listening TCP socket.
#pragma once

#include <cstdint>
#include <string>

#include "base/files.h"
#include "siltstone/result.h"

namespace siltstone::relay {

class Listener {
 public:
  // `address` is numeric, IPv4 or IPv6; port 0 takes a free one. kUnavailable if it is taken.
  static Result<Listener> open(const std::string& address, uint16_t port);

  int fd() const { return socket_.fd(); }
  uint16_t port() const { return port_; }
  // "http://127.0.0.1:8080"
  std::string url() const;

 private:
  Listener(File socket, std::string address, uint16_t port)
      : socket_(std::move(socket)), address_(std::move(address)), port_(port) {}

  File socket_;
  std::string address_;
  uint16_t port_ = 0;
};

}  // namespace siltstone::relay
