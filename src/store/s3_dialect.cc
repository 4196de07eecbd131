#include "store/s3_dialect.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <pugixml.hpp>

#include "base/checksum.h"
#include "base/numbers.h"
#include "base/try.h"
#include "store/url.h"

namespace siltstone {
namespace {

constexpr size_t kShownBytes = 200;
constexpr double kSkewSeconds = 15 * 60;  // what servers tolerate
// SHA-256 of nothing, for requests without a body.
const std::string& empty_sha256() {
  static const std::string hash = sha256_hex({});
  return hash;
}

// Without comments, document types and entities of one's own.
bool load_xml(std::string_view text, pugi::xml_document* document) {
  constexpr unsigned kOptions = pugi::parse_minimal | pugi::parse_escapes;
  return document->load_buffer(text.data(), text.size(), kOptions);
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kShownBytes)) out += c >= ' ' && c <= '~' ? c : ' ';
  return out;
}

// How far the server's clock is ahead of ours; 0 if it does not tell.
double skew_seconds(const HttpReply& reply) {
  std::tm parts{};
  const std::string date(reply.header("date"));
  if (::strptime(date.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts) == nullptr) return 0;
  return std::difftime(::timegm(&parts), std::time(nullptr));
}

bool has_expired(std::string_view code) {
  return code == "ExpiredToken" || code == "TokenRefreshRequired" || code == "InvalidToken";
}

struct Advice {
  std::string_view code;
  Code error;
  std::string_view what_to_do;
};
constexpr Advice kAdvice[] = {
    {"NoSuchBucket", Code::kInvalidArgument, "make the bucket first, or mend its name or endpoint"},
    {"InvalidAccessKeyId", Code::kPermission, "the server does not know this access key"},
    {"SignatureDoesNotMatch", Code::kPermission, "the secret key is not the access key's"},
    {"RequestTimeTooSkewed", Code::kPermission, "set the clock of this machine"},
    {"ExpiredToken", Code::kPermission, "renew the session token"},
    {"InvalidToken", Code::kPermission, "renew the session token"},
    {"TokenRefreshRequired", Code::kPermission, "renew the session token"},
    {"AuthorizationHeaderMalformed", Code::kPermission, "give the bucket's region (region=...)"},
    {"NotImplemented", Code::kUnsupported, "this server lacks the operation"},
    {"EntityTooLarge", Code::kUnsupported, "the server takes no objects as large as this"},
    {"QuotaExceeded", Code::kIo, "the bucket's quota is used up"},
    {"InsufficientStorage", Code::kIo, "the server's disk is full"},
};

Code code_of_status(int status) {
  switch (status) {
    case 404:
      return Code::kNotFound;
    case 401:
    case 403:
    case 407:
      return Code::kPermission;
    case 405:
    case 501:
      return Code::kUnsupported;
    case 409:
    case 412:
      return Code::kConflict;
    case 507:
      return Code::kIo;
    default:
      return status >= 500 || status == 429 || status == 408 ? Code::kUnavailable
                                                             : Code::kInvalidArgument;
  }
}

class S3Dialect final : public HttpDialect {
 public:
  S3Dialect(S3Location location, std::optional<S3Credentials> credentials)
      : location_(std::move(location)), credentials_(std::move(credentials)) {}

  const std::string& url() const override { return location_.url; }

  HttpRequest make(const HttpAttempt& attempt) const override {
    const std::string path =
        attempt.name.empty() ? location_.list_path : location_.base_path + attempt.name;
    const std::string origin = (location_.tls ? "https://" : "http://") + location_.host;
    HttpRequest request;
    const std::optional<S3Credentials> credentials = this->credentials();
    if (!credentials) {
      request.url = origin + encoded_target(path, attempt.query);
      request.headers = attempt.headers;
      return request;
    }
    std::string payload = attempt.body_sha256;
    if (payload.empty()) payload = attempt.body ? kUnsignedPayload : empty_sha256();
    SignedRequest ready = sign(
        {attempt.method, location_.host, path, attempt.query, attempt.headers, std::move(payload)},
        *credentials, location_.region, std::time(nullptr));
    request.url = origin + ready.target;
    request.headers = std::move(ready.headers);
    return request;
  }

  bool is_passing(const HttpAttempt& attempt, const HttpReply& reply) override {
    // Two conditional writes met: which of them wins is not decided yet.
    if (reply.status == 409 && attempt.method == "PUT") return true;
    if (reply.status != 400 && reply.status != 401 && reply.status != 403) return false;
    const S3Message message = parse_s3_message(reply.body);
    if (message.code == "RequestTimeout") return true;
    return has_expired(message.code) && renew();
  }

  Error explain(const HttpReply& reply) const override {
    const S3Message message = parse_s3_message(reply.body);
    std::string text = "status " + std::to_string(reply.status);
    if (!message.code.empty()) text += " " + message.code;
    if (!message.text.empty()) text += " (" + message.text + ")";
    const std::string_view region = reply.header("x-amz-bucket-region");
    if (!region.empty() && region != location_.region) {
      return {Code::kInvalidArgument, text + "; the bucket is in region " + printable(region) +
                                          ": set AWS_REGION or region= of the URL"};
    }
    const auto advice = std::ranges::find(kAdvice, message.code, &Advice::code);
    Code code = advice != std::end(kAdvice) ? advice->error : code_of_status(reply.status);
    if (advice != std::end(kAdvice)) {
      text += "; " + std::string(advice->what_to_do);
    } else if (code == Code::kPermission) {
      text += credentials() ? "; the credentials are not right, or have no right to it"
                            : "; no credentials were found: set AWS_ACCESS_KEY_ID and "
                              "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
    }
    const double skew = skew_seconds(reply);
    if (code == Code::kPermission && std::abs(skew) > kSkewSeconds) {
      text += "; this clock is " + std::to_string(std::lround(std::abs(skew) / 60)) + " minutes " +
              (skew > 0 ? "behind" : "ahead of") + " the server's";
    }
    return {code, std::move(text)};
  }

 private:
  std::optional<S3Credentials> credentials() const {
    const std::lock_guard lock(mutex_);
    return credentials_;
  }

  // Looks the credentials up again; whether they are others now.
  bool renew() {
    const Result<S3Profile> found = find_s3_profile(process_environment());
    if (!found || !found->credentials) return false;
    const std::lock_guard lock(mutex_);
    const bool same = credentials_ && credentials_->access_key == found->credentials->access_key &&
                      credentials_->session_token == found->credentials->session_token;
    credentials_ = found->credentials;
    return !same;
  }

  const S3Location location_;
  mutable std::mutex mutex_;
  std::optional<S3Credentials> credentials_;  // guarded by mutex_
};

}  // namespace

S3Message parse_s3_message(std::string_view body) {
  pugi::xml_document document;
  if (!load_xml(body, &document)) return {};
  const pugi::xml_node error = document.child("Error");
  return {printable(error.child_value("Code")), printable(error.child_value("Message"))};
}

Result<S3Page> parse_s3_page(std::string_view body) {
  const auto bad = [](const std::string& why) {
    return Error{Code::kCorrupt, "the server's listing " + why};
  };
  pugi::xml_document document;
  if (!load_xml(body, &document)) return bad("is not XML");
  const pugi::xml_node result = document.child("ListBucketResult");
  if (!result) return bad("is not a ListBucketResult");
  const bool encoded = std::string_view(result.child_value("EncodingType")) == "url";
  S3Page page;
  for (const pugi::xml_node entry : result.children("Contents")) {
    S3Page::Object object;
    object.key = entry.child_value("Key");
    if (encoded) {
      SILT_ASSIGN(object.key, percent_decoded("listing", object.key));
    }
    const std::optional<uint64_t> size = parse_decimal(entry.child_value("Size"));
    if (object.key.empty() || !size) return bad("has an entry without key or size");
    object.size_bytes = *size;
    page.objects.push_back(std::move(object));
  }
  if (std::string_view(result.child_value("IsTruncated")) == "true") {
    page.next = result.child_value("NextContinuationToken");
    if (page.next.empty()) return bad("goes on, but does not say how");
  }
  return page;
}

std::unique_ptr<HttpDialect> make_s3_dialect(const S3Location& location, const S3Profile& profile) {
  return std::make_unique<S3Dialect>(location, profile.credentials);
}

std::pair<std::string, std::string> create_only_header(const S3Location& location) {
  // Google's XML interface takes preconditions of writes under a name of its own.
  if (location.host.ends_with("storage.googleapis.com")) return {"x-goog-if-generation-match", "0"};
  return {"if-none-match", "*"};
}

}  // namespace siltstone
