// How S3 servers are asked, and what their answers mean.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "store/http_objects.h"
#include "store/s3_credentials.h"
#include "store/s3_location.h"

namespace siltstone {

// What the body of an error says; empty where it says nothing.
struct S3Message {
  std::string code;  // "NoSuchKey"
  std::string text;  // for people, printable, at most 200 bytes
};
S3Message parse_s3_message(std::string_view body);

// One page of a listing (ListObjectsV2). kCorrupt if it is not what that specifies.
struct S3Page {
  struct Object {
    std::string key;
    uint64_t size_bytes = 0;
  };
  std::vector<Object> objects;
  std::string next;  // token of the next page; empty: this was the last
};
Result<S3Page> parse_s3_page(std::string_view body);

// Signs with the credentials of `profile`, which are looked up again when the server says that they
// have expired. Without any, requests go unsigned.
std::unique_ptr<HttpDialect> make_s3_dialect(const S3Location& location, const S3Profile& profile);

// The header that makes a PUT create an object or fail.
std::pair<std::string, std::string> create_only_header(const S3Location& location);

}  // namespace siltstone
