#include "store/http_objects.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/numbers.h"
#include "base/try.h"
#include "store/backoff.h"
#include "store/names.h"
#include "store/url.h"

namespace siltstone {
namespace {

constexpr int kMostRedirects = 5;
// A host that cannot be resolved is rather misspelt than down.
constexpr unsigned kLastingAttempts = 3;

// "bytes 5-9/10"; the total may be "*", and the range where there is none.
struct ContentRange {
  std::optional<uint64_t> begin;
  std::optional<uint64_t> total;
};
ContentRange parse_content_range(std::string_view text) {
  if (!text.starts_with("bytes ")) return {};
  text.remove_prefix(6);
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (slash == text.npos) return {};
  return {dash < slash ? parse_decimal(text.substr(0, dash)) : std::nullopt,
          parse_decimal(text.substr(slash + 1))};
}

// A request that may have been acted on although its reply says that it failed.
bool may_have_acted(int status) {
  return status == 408 || status == 500 || status == 502 || status == 504;
}

bool is_passing_status(int status) {
  return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

std::string_view origin_of(std::string_view url) {
  const size_t host = url.find("://");
  if (host == url.npos) return url.substr(0, url.find_first_of("/?#"));
  return url.substr(0, url.find_first_of("/?#", host + 3));
}

Result<HttpReply> HttpObjects::send(const HttpAttempt& attempt, HttpFailure* failure) {
  HttpRequest request = dialect_->make(attempt);
  request.method = attempt.method;
  request.body = attempt.body;
  request.sink = attempt.sink;
  request.patience_seconds = attempt.patience_seconds;
  request.stop = attempt.stop;
  const bool may_follow = attempt.method == "GET" || attempt.method == "HEAD";
  for (int hop = 0;; ++hop) {
    SILT_ASSIGN(HttpReply reply, client_.send(request, failure));
    if (!may_follow || !is_redirect(reply.status) || reply.location.empty()) return reply;
    const bool left_tls =
        request.url.starts_with("https:") && !reply.location.starts_with("https:");
    if (left_tls || hop == kMostRedirects) {
      *failure = {{Code::kPermission, left_tls ? "the server redirects to an address without TLS"
                                               : "the server redirects in a circle"}};
      return failure->error;
    }
    request.url = reply.location;
    request.headers = attempt.headers;  // not those of the signature: they are not for others
  }
}

Result<HttpReply> HttpObjects::perform(const std::function<HttpAttempt()>& next, bool* unknown) {
  Backoff backoff(options_.total_seconds);
  while (true) {
    HttpAttempt attempt = next();
    bool moved = false;
    if (attempt.sink && attempt.resumes) {
      attempt.sink = [inner = std::move(attempt.sink), &moved](const HttpReply& r, ByteSpan bytes) {
        moved = true;
        return inner(r, bytes);
      };
    }
    HttpFailure failure;
    Result<HttpReply> reply = send(attempt, &failure);
    if (moved) backoff.succeed();
    std::string problem;
    double asked_seconds = 0;
    if (reply) {
      if (unknown != nullptr && reply->sent_twice) *unknown = true;
      if (!is_passing_status(reply->status) && !dialect_->is_passing(attempt, *reply)) return reply;
      if (unknown != nullptr && may_have_acted(reply->status)) *unknown = true;
      problem = dialect_->explain(*reply).message;
      asked_seconds = static_cast<double>(parse_decimal(reply->header("retry-after")).value_or(0));
    } else {
      if (failure.own) return failure.error;
      if (failure.error.code != Code::kUnavailable)
        return failure.error.in(what(attempt.method, attempt.name));
      if (unknown != nullptr && failure.sent) *unknown = true;
      problem = failure.error.message;
      if (failure.lasts && backoff.attempts() + 1 >= kLastingAttempts)
        return Error{Code::kUnavailable, what(attempt.method, attempt.name) + ": " + problem};
    }
    const double wait_seconds = backoff.next_seconds(asked_seconds);
    if (wait_seconds < 0) {
      return Error{Code::kUnavailable,
                   what(attempt.method, attempt.name) + ": " + problem + " (given up after " +
                       std::to_string(backoff.attempts()) + " attempts in " +
                       std::to_string(std::lround(backoff.elapsed_seconds())) + " s)"};
    }
    if (!sleep_unless(wait_seconds, attempt.stop))
      return Error{Code::kCancelled, what(attempt.method, attempt.name) + ": stopped"};
  }
}

std::string HttpObjects::what(std::string_view method, std::string_view name) const {
  const std::string of = name.empty() ? "" : " '" + std::string(name) + "' in";
  return std::string(method) + of + " " + dialect_->url();
}

Error HttpObjects::refused(std::string_view method, std::string_view name,
                           const HttpReply& reply) const {
  Error error = dialect_->explain(reply);
  if (error.code == Code::kNotFound) return no_such_object(name, dialect_->url());
  return error.in(what(method, name));
}

Result<uint64_t> HttpObjects::size_bytes(std::string_view name) {
  SILT_TRY(check_object_name(name));
  const auto head = [&] {
    HttpAttempt attempt;
    attempt.method = "HEAD";
    attempt.name = name;
    return attempt;
  };
  SILT_ASSIGN(const HttpReply reply, perform(head));
  if (reply.status == 200) {
    if (const auto size = parse_decimal(reply.header("content-length"))) return *size;
    return Error{Code::kCorrupt,
                 what("HEAD", name) + ": the server does not tell the object's length"};
  }
  if (reply.status == 404) return refused("HEAD", name, reply);
  // The reply to HEAD has no body that says why; that to GET has.
  const auto first_byte = [&] {
    HttpAttempt attempt;
    attempt.name = name;
    attempt.headers = {{"range", "bytes=0-0"}};
    return attempt;
  };
  SILT_ASSIGN(const HttpReply why, perform(first_byte));
  return refused("HEAD", name, why.status >= 300 ? why : reply);
}

// Asks for one range and returns how many of its bytes came.
Result<uint64_t> HttpObjects::read_part(std::string_view name, uint64_t offset_bytes,
                                        MutByteSpan out) {
  uint64_t got = 0;
  uint64_t skip = 0;  // of a reply of 200: what stands before the range
  bool fresh = true;  // no byte of this reply has come
  const auto begin_reply = [&](const HttpReply& reply) -> Status {
    fresh = false;
    skip = 0;
    if (reply.status == 200) {
      skip = offset_bytes + got;
      const auto total = parse_decimal(reply.header("content-length"));
      return total ? check_range(name, *total, offset_bytes, out.size()) : Status();
    }
    const ContentRange range = parse_content_range(reply.header("content-range"));
    if (range.begin != offset_bytes + got) {
      return Error{Code::kCorrupt,
                   what("GET", name) + ": the server sent another range than it was asked for"};
    }
    return range.total ? check_range(name, *range.total, offset_bytes, out.size()) : Status();
  };
  const auto take = [&](const HttpReply& reply, ByteSpan bytes) -> Status {
    if (fresh) SILT_TRY(begin_reply(reply));
    const uint64_t passed = std::min<uint64_t>(skip, bytes.size());
    skip -= passed;
    bytes = bytes.subspan(passed);
    // A server without ranges sends more than the range, and is hung up on.
    const size_t count = std::min<uint64_t>(bytes.size(), out.size() - got);
    if (count > 0) std::memcpy(out.data() + got, bytes.data(), count);
    got += count;
    if (count == bytes.size()) return {};
    return Error{Code::kCancelled, "the range is whole"};
  };
  const auto next = [&] {
    fresh = true;
    HttpAttempt attempt;
    attempt.name = name;
    attempt.headers = {{"range", "bytes=" + std::to_string(offset_bytes + got) + "-" +
                                     std::to_string(offset_bytes + out.size() - 1)}};
    attempt.sink = take;
    attempt.resumes = true;
    return attempt;
  };
  Result<HttpReply> reply = perform(next);
  if (!reply && got == out.size()) return got;
  if (!reply) return std::move(reply).error();
  if (reply->status == 200 || reply->status == 206) return got;
  if (reply->status == 416) {
    const ContentRange range = parse_content_range(reply->header("content-range"));
    uint64_t total = range.total.value_or(0);
    if (!range.total) {
      SILT_ASSIGN(total, size_bytes(name));
    }
    SILT_TRY(check_range(name, total, offset_bytes, out.size()));
  }
  return refused("GET", name, *reply);
}

Status HttpObjects::read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) {
  SILT_TRY(check_object_name(name));
  // An empty range, or one beyond every object, cannot be asked for.
  if (out.empty() || out.size() > INT64_MAX || offset_bytes > INT64_MAX - out.size()) {
    SILT_ASSIGN(const uint64_t size, size_bytes(name));
    return check_range(name, size, offset_bytes, out.size());
  }
  for (uint64_t done = 0; done < out.size();) {
    SILT_ASSIGN(const uint64_t got, read_part(name, offset_bytes + done, out.subspan(done)));
    if (got == 0) {
      return Error{
          Code::kCorrupt,
          what("GET", name) + ": the server sends nothing of bytes that it says are there"};
    }
    done += got;
  }
  return {};
}

Result<std::string> HttpObjects::read_all(std::string_view name, uint64_t limit_bytes) {
  SILT_TRY(check_object_name(name));
  std::string content;
  const auto take = [&](const HttpReply&, ByteSpan bytes) -> Status {
    if (bytes.size() > limit_bytes - content.size()) {
      return Error{Code::kCorrupt, "object '" + std::string(name) + "' has more than the " +
                                       std::to_string(limit_bytes) + " bytes that are allowed"};
    }
    content += as_text(bytes);
    return {};
  };
  const auto next = [&] {
    content.clear();
    HttpAttempt attempt;
    attempt.name = name;
    attempt.sink = take;
    return attempt;
  };
  SILT_ASSIGN(const HttpReply reply, perform(next));
  if (reply.status == 200) return content;
  return refused("GET", name, reply);
}

}  // namespace siltstone
