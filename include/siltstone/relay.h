// A Relay is a read-through cache of a bucket for a site: it fetches each object from the store
// once, however many replicas ask, and serves it to them over HTTP/1.1. docs/guides/relay.md says
// when to use one and what it serves.
//
//   auto store = open_store("/data/bucket");
//   auto relay = Relay::start(*store, {.cache = "/var/cache/relay"});
//   // replicas read from (*relay)->url()
//
// Everything it serves to the end has been proven by the bucket's own hashes. Whoever reaches its
// address can read the whole bucket.
//
// Ownership: a Relay shares its Store and owns the cache's folder while it runs. Threads: start and
// stop from one thread; the rest from any. Errors: siltstone/result.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "siltstone/result.h"
#include "siltstone/store.h"

namespace siltstone {

// One reply, for a log.
struct RelayAccess {
  std::string client;  // numeric address
  std::string method;
  std::string path;
  unsigned status = 0;
  uint64_t bytes = 0;  // of the body; of a cut reply, what it should have been
  bool whole = true;   // false: it was cut
  double seconds = 0;  // from the request's headers to the last byte
};

struct RelayOptions {
  std::string address = "127.0.0.1";  // numeric, IPv4 or IPv6
  uint16_t port = 0;                  // 0: a free one
  std::filesystem::path cache;        // a folder of its own; made if absent
  uint64_t cache_bytes = uint64_t{50} * 1000 * 1000 * 1000;
  double interval_seconds = 1.0;  // between looks for the next version; life of hints and absence
  unsigned threads = 0;           // that serve; 0: every CPU, at most 8; one per 120 connections
                                  // at least
  unsigned connections = 1024;    // at once; more wait to be accepted
  // Called from the threads that serve after each reply; empty: no log.
  std::function<void(const RelayAccess&)> on_access;
};

class Relay {
 public:
  virtual ~Relay() = default;  // stops at once, then waits for calls of the store that run

  // Serves until stop. kConflict: another relay uses the cache; kNotFound: the store answers and
  // holds no repository. A store that does not answer is no error: health says so.
  static Result<std::unique_ptr<Relay>> start(std::shared_ptr<Store> store,
                                              const RelayOptions& options);

  virtual std::string url() const = 0;  // "http://127.0.0.1:8080"

  // Accepts nothing more, ends requests that wait, lets the other replies finish for at most
  // `grace_seconds`, cuts the rest and leaves no file half written. False: a call of the store
  // still runs, which the destructor would wait for.
  virtual bool stop(double grace_seconds) = 0;
};

}  // namespace siltstone
