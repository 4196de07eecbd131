#include "tensor/text.h"

#include <algorithm>
#include <cstdio>

namespace siltstone {
namespace {

constexpr size_t kMaxShownBytes = 512;

struct Decoded {
  char32_t point = 0;
  size_t length_bytes = 0;  // 0: not well-formed
};

// The character at the start of `text`, which is not empty. Overlong forms, surrogates and points
// beyond U+10FFFF are not well-formed.
Decoded decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return {};
  char32_t point = first & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return {};
    point = point << 6 | (byte(i) & 0x3fU);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool surrogate = point >= 0xd800 && point <= 0xdfff;
  if (overlong || surrogate || point > 0x10ffff) return {};
  return {point, length};
}

bool is_control(char32_t point) {
  return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

}  // namespace

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Decoded character = decode(text.substr(at));
    if (character.length_bytes == 0) return at;
    at += character.length_bytes;
  }
  return std::nullopt;
}

bool is_clean_text(std::string_view text) {
  while (!text.empty()) {
    const Decoded character = decode(text);
    if (character.length_bytes == 0 || is_control(character.point)) return false;
    text.remove_prefix(character.length_bytes);
  }
  return true;
}

bool is_clean_component(std::string_view component) {
  return !component.empty() && component != "." && component != ".." &&
         component.find('/') == std::string_view::npos && is_clean_text(component);
}

std::string quote(std::string_view text) {
  std::string out = "'";
  while (!text.empty() && out.size() <= kMaxShownBytes) {
    const Decoded character = decode(text);
    if (character.length_bytes != 0 && !is_control(character.point)) {
      out += text.substr(0, character.length_bytes);
      text.remove_prefix(character.length_bytes);
      continue;
    }
    for (size_t left = std::max<size_t>(character.length_bytes, 1); left > 0; --left) {
      char escape[5];
      std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned char>(text.front()));
      out += escape;
      text.remove_prefix(1);
    }
  }
  out += text.empty() ? "'" : "...'";
  return out;
}

std::string show_shape(std::span<const int64_t> shape) {
  std::string out = "[";
  for (const int64_t dimension : shape) {
    if (out.size() > 1) out += ',';
    out += std::to_string(dimension);
  }
  return out + "]";
}

}  // namespace siltstone
