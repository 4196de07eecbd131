#include "siltstone/version.h"

#include <algorithm>
#include <charconv>

namespace siltstone {

bool is_ref_name(std::string_view name) {
  if (name.empty() || name.size() > 128 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

Result<VersionRef> VersionRef::parse(std::string_view text) {
  const Error bad{Code::kInvalidArgument,
                  "'" + std::string(text) +
                      "' names no version; use main@12, main, tag:NAME or root:HEXPREFIX"};
  VersionRef ref;
  if (text.starts_with("tag:")) {
    ref.kind = Kind::kTag;
    ref.name = text.substr(4);
    if (!is_ref_name(ref.name)) return bad;
    return ref;
  }
  if (text.starts_with("root:")) {
    ref.kind = Kind::kRoot;
    ref.name = text.substr(5);
    const bool hex = ref.name.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!hex || ref.name.size() < 4 || ref.name.size() > 64) {
      return Error{
          Code::kInvalidArgument,
          "'" + std::string(text) + "': root: takes 4 to 64 lower-case hexadecimal digits"};
    }
    return ref;
  }
  const size_t at = text.find('@');
  ref.name = text.substr(0, at);
  if (!is_ref_name(ref.name)) return bad;
  if (at == std::string_view::npos) return ref;
  ref.kind = Kind::kSeq;
  const std::string_view digits = text.substr(at + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ref.seq);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return bad;
  return ref;
}

}  // namespace siltstone
