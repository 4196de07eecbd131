#include <algorithm>
#include <cctype>
#include <string>

#include "base/bytes.h"
#include "base/try.h"
#include "siltstone/store.h"
#include "store/local.h"
#include "store/memory.h"

namespace siltstone {
namespace {

Error bad_url(std::string_view url, std::string_view why) {
  return {Code::kInvalidArgument, "'" + std::string(url) + "' " + std::string(why)};
}

// "file" of "file:///path", in lower case; empty if `url` is a plain path.
std::string scheme_of(std::string_view url) {
  const size_t end = url.find("://");
  if (end == url.npos || end == 0) return {};
  std::string scheme(url.substr(0, end));
  for (char& c : scheme) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) == 0 && c != '+' && c != '-' && c != '.') return {};
    c = static_cast<char>(std::tolower(byte));
  }
  return std::isalpha(static_cast<unsigned char>(scheme[0])) != 0 ? scheme : std::string();
}

// Undoes %20 and its like.
Result<std::string> percent_decoded(std::string_view url, std::string_view text) {
  std::string out;
  while (!text.empty()) {
    if (text[0] != '%') {
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    std::string digits(text.substr(1, 2));
    std::ranges::transform(digits, digits.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    std::byte value;
    if (!from_hex(digits, {&value, 1})) {
      return bad_url(url, "has a '%' that two hexadecimal digits do not follow");
    }
    out += static_cast<char>(value);
    text.remove_prefix(3);
  }
  return out;
}

Result<std::shared_ptr<Store>> open_path(std::string_view url, const std::string& path) {
  if (path.find('\0') != path.npos) return bad_url(url, "has a NUL byte in its path");
  SILT_ASSIGN(std::shared_ptr<Store> store, LocalStore::open(path));
  return store;
}

}  // namespace

Result<std::shared_ptr<Store>> open_store(std::string_view url) {
  if (url.empty()) {
    return Error{Code::kInvalidArgument,
                 "no store given; expected a path, file:///path or mem://name"};
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
  return Error{Code::kUnsupported, "'" + std::string(url) + "': stores of scheme '" + scheme +
                                       "' are not supported; expected a path, file:///path or "
                                       "mem://name"};
}

}  // namespace siltstone
