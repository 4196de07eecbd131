#include "store/s3_signature.h"

#include <algorithm>
#include <array>

#include "base/checksum.h"
#include "store/url.h"

namespace siltstone {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

std::string utc(std::time_t now, const char* format) {
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text;
  return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

// Encoded pairs in the order of their bytes; a name without a value keeps its '='.
std::string canonical_query(const HttpFields& query) {
  HttpFields pairs;
  for (const auto& [name, value] : query)
    pairs.emplace_back(percent_encoded(name), percent_encoded(value));
  std::ranges::sort(pairs);
  std::string out;
  for (const auto& [name, value] : pairs) out += (out.empty() ? "" : "&") + name + "=" + value;
  return out;
}

// Without spaces around it, and with one where there are several.
std::string trimmed(std::string_view value) {
  std::string out;
  for (const char c : value) {
    const bool space = c == ' ' || c == '\t';
    if (space && (out.empty() || out.back() == ' ')) continue;
    out += space ? ' ' : c;
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

Sha256Digest signing_key(const S3Credentials& credentials, std::string_view date,
                         std::string_view region) {
  Sha256Digest key = hmac_sha256(as_bytes("AWS4" + credentials.secret_key), as_bytes(date));
  for (const std::string_view part :
       {region, std::string_view("s3"), std::string_view("aws4_request")})
    key = hmac_sha256(key, as_bytes(part));
  return key;
}

}  // namespace

std::string encoded_target(std::string_view path, const HttpFields& query) {
  const std::string encoded = percent_encoded(path, /*keep_slashes=*/true);
  return query.empty() ? encoded : encoded + "?" + canonical_query(query);
}

SignedRequest sign(const S3Request& request, const S3Credentials& credentials,
                   std::string_view region, std::time_t now) {
  const std::string date = utc(now, "%Y%m%d");
  const std::string time = utc(now, "%Y%m%dT%H%M%SZ");
  SignedRequest out;
  out.headers = request.headers;
  out.headers.emplace_back("x-amz-content-sha256", request.payload_sha256);
  out.headers.emplace_back("x-amz-date", time);
  if (!credentials.session_token.empty())
    out.headers.emplace_back("x-amz-security-token", credentials.session_token);

  HttpFields signed_ones = out.headers;
  signed_ones.emplace_back("host", request.host);
  std::ranges::sort(signed_ones);
  std::string names;
  std::string lines;
  for (const auto& [name, value] : signed_ones) {
    names += (names.empty() ? "" : ";") + name;
    lines += name + ":" + trimmed(value) + "\n";
  }
  const std::string path = percent_encoded(request.path, /*keep_slashes=*/true);
  const std::string query = canonical_query(request.query);
  out.target = encoded_target(request.path, request.query);

  const std::string canonical = request.method + "\n" + path + "\n" + query + "\n" + lines + "\n" +
                                names + "\n" + request.payload_sha256;
  const std::string scope = date + "/" + std::string(region) + "/s3/aws4_request";
  const std::string to_sign =
      std::string(kAlgorithm) + "\n" + time + "\n" + scope + "\n" + sha256_hex(as_bytes(canonical));
  const std::string signature =
      to_hex(hmac_sha256(signing_key(credentials, date, region), as_bytes(to_sign)));
  out.headers.emplace_back("authorization",
                           std::string(kAlgorithm) + " Credential=" + credentials.access_key + "/" +
                               scope + ",SignedHeaders=" + names + ",Signature=" + signature);
  return out;
}

}  // namespace siltstone
