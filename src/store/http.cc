#include "store/http.h"

#include <algorithm>
#include <cmath>

#include "base/try.h"
#include "store/names.h"
#include "store/url.h"

namespace siltstone {
namespace {

class PlainDialect final : public HttpDialect {
 public:
  explicit PlainDialect(std::string url) : url_(std::move(url)) {}

  const std::string& url() const override { return url_; }

  HttpRequest make(const HttpAttempt& attempt) const override {
    HttpRequest request;
    request.url = url_ + "/" + attempt.name;  // whose bytes need no encoding
    request.headers = attempt.headers;
    return request;
  }

  bool is_passing(const HttpAttempt&, const HttpReply&) override { return false; }

  Error explain(const HttpReply& reply) const override {
    const std::string text = "status " + std::to_string(reply.status);
    if (reply.status == 404 || reply.status == 410) return {Code::kNotFound, text};
    if (reply.status == 401 || reply.status == 403 || reply.status == 407)
      return {Code::kPermission, text + "; the server does not let everybody read"};
    if (reply.status >= 500 || reply.status == 429 || reply.status == 408)
      return {Code::kUnavailable, text};
    return {Code::kCorrupt, text + ", which is no answer to a request for a file"};
  }

 private:
  const std::string url_;
};

}  // namespace

Result<std::shared_ptr<HttpStore>> HttpStore::open(std::string_view url,
                                                   const StoreOptions& options) {
  std::string_view base = url;
  while (base.ends_with('/')) base.remove_suffix(1);
  const std::string_view host = origin_of(base).substr(scheme_of(url).size() + 3);
  const auto strange = [](char c) { return c <= ' ' || c > '~' || c == '?' || c == '#'; };
  if (host.empty() || std::ranges::any_of(base, strange))
    return bad_url(url, "is no address of a folder; expected http://host/path");
  if (host.find('@') != host.npos)
    return Error{
        Code::kInvalidArgument,
        "an http:// bucket takes no password in its address; a proxy in front can hold it"};
  return std::make_shared<HttpStore>(std::make_unique<PlainDialect>(std::string(base)), options);
}

StoreTraits HttpStore::traits() const {
  return {.retries = true, .waits = waits_, .transfers = objects_.options().transfers};
}

Result<bool> HttpStore::wait(std::string_view name, double seconds, const std::atomic<bool>* stop) {
  SILT_TRY(check_object_name(name));
  if (!waits_) return false;
  const long whole_seconds = std::max(1L, std::lround(seconds));
  SILT_ASSIGN(const HttpReply reply, objects_.perform([&] {
    HttpAttempt attempt;
    attempt.method = "HEAD";
    attempt.name = name;
    attempt.headers = {{"prefer", "wait=" + std::to_string(whole_seconds)}};
    attempt.patience_seconds = static_cast<double>(whole_seconds);
    attempt.stop = stop;
    return attempt;
  }));
  if (reply.header("preference-applied").find("wait") == std::string_view::npos) waits_ = false;
  if (reply.status == 200) return true;
  if (reply.status == 404) return false;
  return objects_.refused("HEAD", name, reply);
}

Error HttpStore::read_only(std::string_view what) const {
  return {Code::kPermission, std::string(what) + " in '" + url() +
                                 "': a bucket behind plain HTTP can only be read; write to the "
                                 "store that it shows"};
}

Status HttpStore::create(std::string_view name, const ByteSource&) {
  SILT_TRY(check_object_name(name));
  return read_only("create '" + std::string(name) + "'");
}

Status HttpStore::replace(std::string_view name, std::span<const std::byte>) {
  SILT_TRY(check_object_name(name));
  return read_only("replace '" + std::string(name) + "'");
}

Result<std::vector<ObjectInfo>> HttpStore::list(std::string_view prefix) {
  SILT_TRY(check_object_prefix(prefix));
  return Error{Code::kUnsupported,
               "'" + url() + "' cannot be listed: it is a bucket behind plain HTTP"};
}

Status HttpStore::remove(std::string_view name) {
  SILT_TRY(check_object_name(name));
  return read_only("remove '" + std::string(name) + "'");
}

}  // namespace siltstone
