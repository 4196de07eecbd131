#include "store/url.h"

#include <algorithm>
#include <cctype>

#include "base/bytes.h"

namespace siltstone {

Error bad_url(std::string_view url, std::string_view why) {
  return {Code::kInvalidArgument, "'" + std::string(url) + "' " + std::string(why)};
}

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

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool plain = letter || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
                       c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

}  // namespace siltstone
