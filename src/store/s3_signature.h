// Signature Version 4 of requests to S3, as Amazon's "Authenticating Requests: Using the
// Authorization Header" specifies it.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace siltstone {

struct S3Credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // of temporary credentials; else empty
};

using HttpFields = std::vector<std::pair<std::string, std::string>>;

// A request before it is signed; nothing in it is percent-encoded.
struct S3Request {
  std::string method;          // "GET"
  std::string host;            // with the port, if it is not the scheme's own
  std::string path = "/";      // all of it: an endpoint may have a path of its own
  HttpFields query;            // in any order
  HttpFields headers;          // what else is signed, names in lower case
  std::string payload_sha256;  // hexadecimal, or kUnsignedPayload
};
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

// The path, and the query in the order in which it is signed, percent-encoded.
std::string encoded_target(std::string_view path, const HttpFields& query);

// What goes over the wire. The server compares a signature made of what it received, so the target
// is sent as it stands here.
struct SignedRequest {
  std::string target;  // path and query, encoded
  HttpFields headers;  // those of the request and what signing adds, but for host
};
SignedRequest sign(const S3Request& request, const S3Credentials& credentials,
                   std::string_view region, std::time_t now);

}  // namespace siltstone
