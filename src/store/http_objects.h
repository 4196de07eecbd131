// Objects behind a server that speaks HTTP: requests that are made again as long as that makes
// sense, ranges that are resumed where they broke off, redirects.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "store/http_client.h"

namespace siltstone {

// One attempt of a request; nothing in it is percent-encoded.
struct HttpAttempt {
  std::string method = "GET";
  std::string name;  // of the object; empty: the bucket itself
  HttpFields query;
  HttpFields headers;  // names in lower case
  const ByteSource* body = nullptr;
  std::string body_sha256;  // where it is known or cheap
  std::function<Status(const HttpReply&, ByteSpan)> sink;
  bool resumes = false;  // what the sink took is not asked for again
  double patience_seconds = 0;
  const std::atomic<bool>* stop = nullptr;
};

// What one kind of server wants of requests, and means with replies.
class HttpDialect {
 public:
  virtual ~HttpDialect() = default;
  // Of the store, for messages.
  virtual const std::string& url() const = 0;
  // URL and headers of the request, signed if the server wants that; body and sink are not its
  // business.
  virtual HttpRequest make(const HttpAttempt& attempt) const = 0;
  // Whether the same request may be answered otherwise soon; 408, 429 and most of 5xx are anyway.
  virtual bool is_passing(const HttpAttempt& attempt, const HttpReply& reply) = 0;
  // What a reply of status 300 and above says, with what to do about it. kNotFound only where
  // nothing but the object is missing.
  virtual Error explain(const HttpReply& reply) const = 0;
};

// Threads: many at once.
class HttpObjects {
 public:
  HttpObjects(std::unique_ptr<HttpDialect> dialect, const StoreOptions& options)
      : dialect_(std::move(dialect)), options_(options), client_(options) {}

  const StoreOptions& options() const { return options_; }
  const HttpDialect& dialect() const { return *dialect_; }

  // As a Store's.
  Result<uint64_t> size_bytes(std::string_view name);
  Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out);
  Result<std::string> read_all(std::string_view name, uint64_t limit_bytes);

  // Makes the attempts that `next` describes, one after the other, until a reply is no passing
  // failure; follows redirects of GET and HEAD, without what authorises the request. Any status is
  // success. `*unknown` becomes true if an attempt before the last may have been acted on.
  // kUnavailable: the time is up.
  Result<HttpReply> perform(const std::function<HttpAttempt()>& next, bool* unknown = nullptr);

  // The error that a reply of status 300 and above is, with method, object and URL.
  Error refused(std::string_view method, std::string_view name, const HttpReply& reply) const;

 private:
  std::string what(std::string_view method, std::string_view name) const;
  Result<HttpReply> send(const HttpAttempt& attempt, HttpFailure* failure);
  Result<uint64_t> read_part(std::string_view name, uint64_t offset_bytes, MutByteSpan out);

  std::unique_ptr<HttpDialect> dialect_;
  const StoreOptions options_;
  HttpClient client_;
};

// Scheme, host and port of a URL, without whatever secret its query may hold.
std::string_view origin_of(std::string_view url);

}  // namespace siltstone
