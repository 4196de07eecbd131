#include "store/s3.h"

#include <algorithm>

#include "base/checksum.h"
#include "base/try.h"
#include "store/names.h"
#include "store/s3_dialect.h"
#include "store/sources.h"

namespace siltstone {
namespace {

// Up to here a content is hashed for the signature, so that the server proves what arrives. Larger
// ones are proven by TLS, and by whoever reads them.
constexpr uint64_t kMostHashedBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxPutBytes = uint64_t{5} << 30;
// A listing that goes on for ever is a server's fault.
constexpr int kMostPages = 100'000;

Result<std::string> payload_sha256(const ByteSource& content) {
  std::string known = content.sha256();
  if (!known.empty() || content.size_bytes() > kMostHashedBytes) return known;
  std::vector<std::byte> bytes(content.size_bytes());
  SILT_TRY(content.read(0, bytes));
  return sha256_hex(bytes);
}

}  // namespace

Result<std::shared_ptr<S3Store>> S3Store::open(std::string_view url, const StoreOptions& options) {
  SILT_ASSIGN(const S3Profile profile, find_s3_profile(process_environment()));
  SILT_ASSIGN(S3Location location, parse_s3_url(url, profile));
  auto dialect = make_s3_dialect(location, profile);
  return std::make_shared<S3Store>(std::move(dialect), std::move(location), options);
}

StoreTraits S3Store::traits() const {
  return {.create_exclusive = !single_writer_,
          .retries = true,
          .transfers = objects_.options().transfers};
}

Result<HttpReply> S3Store::put(std::string_view name, const ByteSource& content, bool only_new,
                               bool* unknown) {
  if (content.size_bytes() > kMaxPutBytes) {
    return Error{Code::kUnsupported, "object '" + std::string(name) + "' has more than 5 GiB, " +
                                         "which S3 does not take in one piece"};
  }
  SILT_ASSIGN(const std::string sha256, payload_sha256(content));
  return objects_.perform(
      [&] {
        HttpAttempt attempt;
        attempt.method = "PUT";
        attempt.name = name;
        attempt.body = &content;
        attempt.body_sha256 = sha256;
        if (only_new) attempt.headers.push_back(create_only_header(location_));
        return attempt;
      },
      unknown);
}

Result<bool> S3Store::holds(std::string_view name, const ByteSource& content) {
  SILT_ASSIGN(const uint64_t size, size_bytes(name));
  if (size != content.size_bytes()) return false;
  std::vector<std::byte> ours(std::min(size, kMaxPieceBytes));
  std::vector<std::byte> theirs(ours.size());
  for (uint64_t at = 0; at < size; at += ours.size()) {
    const size_t count = std::min<uint64_t>(ours.size(), size - at);
    SILT_TRY(content.read(at, MutByteSpan(ours).first(count)));
    SILT_TRY(read(name, at, MutByteSpan(theirs).first(count)));
    if (!std::equal(ours.begin(), ours.begin() + static_cast<ptrdiff_t>(count), theirs.begin()))
      return false;
  }
  return true;
}

Status S3Store::create(std::string_view name, const ByteSource& content) {
  SILT_TRY(check_object_name(name));
  if (single_writer_) {
    const Result<uint64_t> there = size_bytes(name);
    if (there) return object_exists(name, url());
    if (there.error().code != Code::kNotFound) return there.error();
  }
  bool unknown = false;
  SILT_ASSIGN(const HttpReply reply, put(name, content, !single_writer_, &unknown));
  if (reply.status >= 200 && reply.status < 300) return {};
  if (reply.status == 412 && unknown) {
    // The name may have been taken by an attempt of ours whose reply was lost.
    Result<bool> ours = holds(name, content);
    if (!ours) return std::move(ours).error().in("learn whose '" + std::string(name) + "' is");
    if (*ours) return {};
  }
  if (reply.status == 412) return object_exists(name, url());
  Error error = objects_.refused("PUT", name, reply);
  if (reply.status == 501 && !single_writer_) {
    error.code = Code::kUnsupported;
    error.message +=
        "; the server may not know conditional writes, without which two writers could "
        "overwrite each other's versions";
  }
  return error;
}

Status S3Store::replace(std::string_view name, std::span<const std::byte> content) {
  SILT_TRY(check_object_name(name));
  SILT_ASSIGN(const HttpReply reply, put(name, SpanSource(content), false, nullptr));
  if (reply.status >= 200 && reply.status < 300) return {};
  return objects_.refused("PUT", name, reply);
}

Result<std::vector<ObjectInfo>> S3Store::list(std::string_view prefix) {
  SILT_TRY(check_object_prefix(prefix));
  std::vector<ObjectInfo> out;
  std::string token;
  for (int pages = 0; pages < kMostPages; ++pages) {
    SILT_ASSIGN(const HttpReply reply, objects_.perform([&] {
      HttpAttempt attempt;
      attempt.query = {{"list-type", "2"},
                       {"prefix", location_.key_prefix + std::string(prefix)},
                       {"encoding-type", "url"}};
      if (!token.empty()) attempt.query.emplace_back("continuation-token", token);
      return attempt;
    }));
    if (reply.status != 200) return objects_.refused("LIST", "", reply);
    Result<S3Page> page = parse_s3_page(reply.body);
    if (!page) return std::move(page).error().in("LIST " + url());
    for (S3Page::Object& object : page->objects) {
      if (!object.key.starts_with(location_.key_prefix)) continue;
      std::string name = object.key.substr(location_.key_prefix.size());
      if (is_object_name(name) && name.starts_with(prefix))
        out.push_back({std::move(name), object.size_bytes});
    }
    if (page->next.empty()) {
      std::ranges::sort(out, {}, &ObjectInfo::name);
      return out;
    }
    token = std::move(page->next);
  }
  return Error{Code::kCorrupt, "LIST " + url() + ": the listing does not end"};
}

Status S3Store::remove(std::string_view name) {
  SILT_TRY(check_object_name(name));
  SILT_ASSIGN(const HttpReply reply, objects_.perform([&] {
    HttpAttempt attempt;
    attempt.method = "DELETE";
    attempt.name = name;
    return attempt;
  }));
  if (reply.status < 300) return {};
  Error error = objects_.refused("DELETE", name, reply);
  return error.code == Code::kNotFound ? Status() : Status(std::move(error));
}

Status S3Store::use_single_writer() {
  single_writer_ = true;
  return {};
}

}  // namespace siltstone
