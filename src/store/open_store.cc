#include <algorithm>
#include <string>

#include "base/try.h"
#include "siltstone/store.h"
#include "store/http.h"
#include "store/local.h"
#include "store/memory.h"
#include "store/relayed.h"
#include "store/s3.h"
#include "store/url.h"

namespace siltstone {
namespace {

constexpr const char* kSchemes =
    "a path, file:///path, s3://bucket/prefix, hf://buckets/namespace/name, https://host/path or "
    "mem://name";

Result<std::shared_ptr<Store>> open_path(std::string_view url, const std::string& path) {
  if (path.find('\0') != path.npos) return bad_url(url, "has a NUL byte in its path");
  SILT_ASSIGN(std::shared_ptr<Store> store, LocalStore::open(path));
  return store;
}

// A relay is near: one that takes long is not worth waiting for.
constexpr double kRelaySeconds = 3;

Result<std::shared_ptr<Store>> open_direct(std::string_view url, const StoreOptions& options) {
  if (url.empty()) {
    return Error{Code::kInvalidArgument, std::string("no store given; expected ") + kSchemes};
  }
  const std::string scheme = scheme_of(url);
  if (scheme.empty()) return open_path(url, std::string(url));
  const std::string_view rest = url.substr(scheme.size() + 3);
  if (scheme == "file") {
    if (!rest.starts_with('/')) {
      return bad_url(url, "names a host or a relative path; expected file:///absolute/path");
    }
    SILT_ASSIGN(const std::string path, percent_decoded(url, rest));
    return open_path(url, path);
  }
  if (scheme == "mem") {
    if (!is_object_name(rest)) {
      return bad_url(url, "has no legal name; expected mem://name of a-z 0-9 . _ -");
    }
    std::shared_ptr<Store> store = MemoryStore::shared(rest);
    return store;
  }
  if (scheme == "s3" || scheme == "hf") {
    SILT_ASSIGN(std::shared_ptr<Store> store, S3Store::open(url, options));
    return store;
  }
  if (scheme == "http" || scheme == "https") {
    SILT_ASSIGN(std::shared_ptr<Store> store, HttpStore::open(url, options));
    return store;
  }
  return Error{Code::kUnsupported, "'" + std::string(url) + "': stores of scheme '" + scheme +
                                       "' are not supported; expected " + kSchemes};
}

}  // namespace

Result<std::shared_ptr<Store>> open_store(std::string_view url, const StoreOptions& options) {
  SILT_ASSIGN(std::shared_ptr<Store> store, open_direct(url, options));
  if (options.relay.empty()) return store;
  if (!options.relay.starts_with("http://") && !options.relay.starts_with("https://"))
    return bad_url(options.relay, "is no address of a relay; expected http://host:port");
  StoreOptions near = options;
  near.connect_seconds = std::min(options.connect_seconds, kRelaySeconds);
  near.total_seconds = std::min(options.total_seconds, kRelaySeconds);
  SILT_ASSIGN(std::shared_ptr<Store> relay, HttpStore::open(options.relay, near));
  return std::shared_ptr<Store>(std::make_shared<RelayedStore>(std::move(relay), std::move(store)));
}

}  // namespace siltstone
