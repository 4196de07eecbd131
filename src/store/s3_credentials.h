// Where programs that speak S3 look for keys and settings: the environment, then the profile files
// that `aws configure` writes. (Roles of a machine or a container are not looked up: export their
// keys.)
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "siltstone/result.h"
#include "store/s3_signature.h"

namespace siltstone {

// A variable of the environment; empty if it is not set, or set to nothing.
using Environment = std::function<std::optional<std::string>(const char* name)>;
Environment process_environment();

struct S3Profile {
  std::optional<S3Credentials> credentials;  // none: requests go unsigned, as public buckets allow
  std::string region;                        // empty: not set anywhere
  std::string endpoint;                      // the same
};

// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or AWS_DEFAULT_REGION,
// and AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL; what these leave open, from the profile
// (AWS_PROFILE, else "default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) and
// AWS_CONFIG_FILE (~/.aws/config). kPermission if half of a key is there, if the profile that
// AWS_PROFILE names is in neither file, or if it takes its keys from something that is not looked
// up here. No message holds a secret.
Result<S3Profile> find_s3_profile(const Environment& environment);

}  // namespace siltstone
