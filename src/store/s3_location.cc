#include "store/s3_location.h"

#include <algorithm>
#include <map>

#include "base/try.h"
#include "store/url.h"

namespace siltstone {
namespace {

constexpr std::string_view kHuggingFaceEndpoint = "https://s3.hf.co/";
constexpr std::string_view kDefaultRegion = "us-east-1";

// Amazon's rules for names of buckets, but for upper-case letters, which older servers allow.
bool is_bucket_name(std::string_view name) {
  const auto legal = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  };
  return name.size() >= 3 && name.size() <= 63 && std::ranges::all_of(name, legal) &&
         name[0] != '.' && name[0] != '-' && name.find("..") == name.npos;
}

// Letters, digits and hyphens: it goes into a host name.
bool is_region(std::string_view region) {
  return !region.empty() && region.size() <= 64 && std::ranges::all_of(region, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}

// What the gateways of all providers take: no empty part, no "." and "..", no control characters.
bool is_key_prefix(std::string_view prefix) {
  constexpr size_t kMostBytes = 400;  // keys may have 1,024, object names 512
  if (prefix.size() > kMostBytes) return false;
  const auto bad = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7F;
  };
  if (std::ranges::any_of(prefix, bad)) return false;
  for (size_t at = 0; at <= prefix.size();) {
    const size_t end = std::min(prefix.find('/', at), prefix.size());
    const std::string_view part = prefix.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = end + 1;
  }
  return true;
}

// Host, or host:port; nothing that would end a header or a host name.
bool is_host(std::string_view host) {
  return !host.empty() && host.size() <= 255 && std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == ':' || c == '[' || c == ']';
  });
}

struct Endpoint {
  bool tls = true;
  std::string host;
  std::string path;  // empty, or begins with '/' and does not end with it
};

Result<Endpoint> parse_endpoint(std::string_view url, std::string_view endpoint) {
  const std::string scheme = scheme_of(endpoint);
  if (scheme != "http" && scheme != "https")
    return bad_url(url, "has endpoint '" + std::string(endpoint) +
                            "'; expected http://host or https://host, a port and a path behind it");
  const std::string_view rest = endpoint.substr(scheme.size() + 3);
  const size_t slash = std::min(rest.find('/'), rest.size());
  Endpoint out{scheme == "https", std::string(rest.substr(0, slash)), {}};
  std::string_view path = rest.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  out.path = path;
  // Also what would be taken for a user name, a query or a fragment.
  if (!is_host(out.host) || path.find_first_of("?#%\\ ") != path.npos)
    return bad_url(url, "has an endpoint that is not a host and a plain path");
  return out;
}

Result<std::map<std::string, std::string>> parse_options(std::string_view url,
                                                         std::string_view query) {
  std::map<std::string, std::string> options;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const size_t equals = pair.find('=');
    const std::string_view name = pair.substr(0, equals);
    if (equals == pair.npos || (name != "endpoint" && name != "region" && name != "addressing"))
      return bad_url(url, "has option '" + std::string(pair) +
                              "'; expected endpoint=, region= or addressing=");
    SILT_ASSIGN(std::string value, percent_decoded(url, pair.substr(equals + 1)));
    if (!options.emplace(std::string(name), std::move(value)).second)
      return bad_url(url, "has the option '" + std::string(name) + "' twice");
  }
  return options;
}

struct Parts {
  std::string bucket;
  std::string prefix;  // without a '/' at its ends
  std::string endpoint;
  std::string region;
  std::string addressing;
};

Result<Parts> parse_parts(std::string_view url, const S3Profile& profile) {
  const std::string scheme = scheme_of(url);
  std::string_view rest = url.substr(scheme.size() + 3);
  const size_t question = std::min(rest.find('?'), rest.size());
  SILT_ASSIGN(auto options, parse_options(url, rest.substr(std::min(question + 1, rest.size()))));
  rest = rest.substr(0, question);
  const auto next = [&rest] {
    const size_t slash = std::min(rest.find('/'), rest.size());
    const std::string part(rest.substr(0, slash));
    rest.remove_prefix(std::min(slash + 1, rest.size()));
    return part;
  };
  Parts parts;
  if (scheme == "hf") {
    const std::string kind = next();
    const std::string space = next();
    if (kind != "buckets" || !is_bucket_name(space + "--") || !options.empty())
      return bad_url(url, "names no bucket; expected hf://buckets/NAMESPACE/NAME/PREFIX");
    parts.endpoint = std::string(kHuggingFaceEndpoint) + space;
    parts.region = kDefaultRegion;
  } else {
    parts.endpoint = options.contains("endpoint") ? options["endpoint"] : profile.endpoint;
    parts.region = options.contains("region") ? options["region"] : profile.region;
    parts.addressing = options["addressing"];
    if (parts.region.empty()) parts.region = kDefaultRegion;
  }
  parts.bucket = next();
  SILT_ASSIGN(parts.prefix, percent_decoded(url, rest));
  while (parts.prefix.ends_with('/')) parts.prefix.pop_back();
  return parts;
}

}  // namespace

Result<S3Location> parse_s3_url(std::string_view url, const S3Profile& profile) {
  SILT_ASSIGN(const Parts parts, parse_parts(url, profile));
  if (!is_bucket_name(parts.bucket))
    return bad_url(url,
                   "names no bucket; expected s3://BUCKET/PREFIX, a name of 3 to 63 characters");
  if (!parts.prefix.empty() && !is_key_prefix(parts.prefix))
    return bad_url(url,
                   "has a prefix with an empty part, '.', '..', a backslash or a control "
                   "character, or one of more than 400 bytes");
  if (!is_region(parts.region)) return bad_url(url, "has no legal region");
  const std::string& how = parts.addressing;
  if (!how.empty() && how != "path" && how != "virtual")
    return bad_url(url, "has addressing '" + how + "'; expected path or virtual");

  const bool amazon = parts.endpoint.empty();
  const bool dotted = parts.bucket.find('.') != std::string::npos;
  const bool in_host = how.empty() ? amazon && !dotted : how == "virtual";
  SILT_ASSIGN(const Endpoint endpoint,
              parse_endpoint(
                  url, amazon ? "https://s3." + parts.region + ".amazonaws.com" : parts.endpoint));
  S3Location out;
  out.url = url;
  out.tls = endpoint.tls;
  out.host = in_host ? parts.bucket + "." + endpoint.host : endpoint.host;
  out.bucket = parts.bucket;
  out.list_path = endpoint.path + (in_host ? "/" : "/" + parts.bucket);
  out.key_prefix = parts.prefix.empty() ? "" : parts.prefix + "/";
  out.base_path = (in_host ? endpoint.path : out.list_path) + "/" + out.key_prefix;
  out.region = parts.region;
  return out;
}

}  // namespace siltstone
