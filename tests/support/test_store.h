// Where tests keep a bucket that may lie anywhere.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "base/files.h"
#include "siltstone/store.h"

namespace siltstone {

// An empty store in memory; where tests/servers/run.py started an S3 server, a prefix of its bucket
// "foundation".
inline std::shared_ptr<Store> test_store() {
  const char* endpoint = std::getenv("SILTSTONE_TEST_S3_ENDPOINT");
  if (endpoint == nullptr) return *open_store("mem://" + unique_name("test-"));
  return *open_store("s3://foundation/" + unique_name("") + "?endpoint=" + endpoint);
}

}  // namespace siltstone
