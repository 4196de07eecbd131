// What a URL of an S3 or Hugging Face bucket names.
//
//   s3://BUCKET/PREFIX?endpoint=https://host:port/path&region=REGION&addressing=path|virtual
//   hf://buckets/NAMESPACE/NAME/PREFIX
#pragma once

#include <string>
#include <string_view>

#include "siltstone/result.h"
#include "store/s3_credentials.h"

namespace siltstone {

struct S3Location {
  std::string url;  // as it was given: for people
  bool tls = true;
  std::string host;  // of every request, with the port if one was given; virtual: BUCKET.host
  std::string
      base_path;  // of all keys, ends with '/': endpoint's path, bucket if path-style, prefix
  std::string bucket;
  std::string key_prefix;  // in front of object names; empty or ends with '/'
  std::string list_path;   // of requests to the bucket itself
  std::string region;
};

// Endpoint and region: the URL's, else the profile's, else Amazon's of us-east-1. Buckets at Amazon
// are addressed as virtual hosts (unless their name has a dot, which certificates do not match),
// all others by path. kInvalidArgument for anything that is not of this form.
Result<S3Location> parse_s3_url(std::string_view url, const S3Profile& profile);

}  // namespace siltstone
