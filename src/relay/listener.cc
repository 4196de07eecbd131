#include "relay/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace siltstone::relay {
namespace {

constexpr int kBacklog = 1024;

struct FreeAddress {
  void operator()(addrinfo* info) const { ::freeaddrinfo(info); }
};

uint16_t bound_port(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) return 0;
  if (bound.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
}

}  // namespace

Result<Listener> Listener::open(const std::string& address, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  if (::getaddrinfo(address.c_str(), service.c_str(), &hints, &found) != 0) {
    return Error{Code::kInvalidArgument,
                 "'" + address + "' is not an IPv4 or IPv6 address to listen at"};
  }
  const std::unique_ptr<addrinfo, FreeAddress> info(found);
  const std::string where = address + ":" + service;
  File socket(::socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), where);
  if (!socket.is_open()) return os_error(errno, "open a socket for", where);
  const int on = 1;
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.fd(), info->ai_addr, info->ai_addrlen) != 0 ||
      ::listen(socket.fd(), kBacklog) != 0) {
    return os_error(errno, "listen at", where);
  }
  const uint16_t bound = bound_port(socket.fd());
  return Listener(std::move(socket), address, bound);
}

std::string Listener::url() const {
  const bool v6 = address_.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + address_ + "]" : address_) + ":" + std::to_string(port_);
}

}  // namespace siltstone::relay
