#include "store/names.h"

#include <algorithm>
#include <cstddef>

#include "base/bytes.h"
#include "siltstone/store.h"

namespace siltstone {
namespace {

constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxComponentBytes = 128;
constexpr size_t kMaxComponents = 7;
// Enough of a hostile name to recognise it by.
constexpr size_t kMaxShownBytes = 64;

bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool has_component_bytes(std::string_view component) {
  return component.size() <= kMaxComponentBytes &&
         std::all_of(component.begin(), component.end(), is_name_byte);
}

std::string shown(std::string_view name) {
  const std::string_view head = name.substr(0, kMaxShownBytes);
  std::string out = "'";
  for (const char c : head) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += "\\x" + to_hex(as_bytes({&c, 1}));
    }
  }
  out += head.size() < name.size() ? "...'" : "'";
  return out;
}

}  // namespace

bool is_name_component(std::string_view component) {
  return !component.empty() && component != "." && component != ".." &&
         has_component_bytes(component);
}

bool is_object_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) return false;
  size_t components = 1;
  for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/')) {
    if (!is_name_component(name.substr(0, slash))) return false;
    name.remove_prefix(slash + 1);
    ++components;
  }
  return components <= kMaxComponents && is_name_component(name);
}

bool is_object_prefix(std::string_view prefix) {
  const size_t slash = prefix.rfind('/');
  const std::string_view leaf = slash == prefix.npos ? prefix : prefix.substr(slash + 1);
  if (!has_component_bytes(leaf)) return false;
  if (slash == prefix.npos) return true;
  // The shortest name in that folder must be legal.
  return prefix.size() <= kMaxNameBytes &&
         is_object_name(std::string(prefix.substr(0, slash)) + "/a");
}

Status check_object_name(std::string_view name) {
  if (is_object_name(name)) return {};
  return Error{Code::kInvalidArgument,
               shown(name) +
                   " is not an object name: expected 1 to 7 components of 1 to 128 of "
                   "a-z 0-9 . _ - joined by '/', 512 bytes at most, none '.' or '..'"};
}

Status check_object_prefix(std::string_view prefix) {
  if (is_object_prefix(prefix)) return {};
  return Error{Code::kInvalidArgument, "no object name can start with " + shown(prefix)};
}

Error no_such_object(std::string_view name, std::string_view url) {
  return {Code::kNotFound, "no object '" + std::string(name) + "' in '" + std::string(url) + "'"};
}

Error object_exists(std::string_view name, std::string_view url) {
  return {Code::kConflict,
          "object '" + std::string(name) + "' exists already in '" + std::string(url) + "'"};
}

Status check_range(std::string_view name, uint64_t size_bytes, uint64_t offset_bytes,
                   uint64_t length_bytes) {
  if (offset_bytes <= size_bytes && length_bytes <= size_bytes - offset_bytes) return {};
  return Error{Code::kCorrupt, "object '" + std::string(name) + "' is too short: expected " +
                                   std::to_string(length_bytes) + " bytes from byte " +
                                   std::to_string(offset_bytes) + " on, found " +
                                   std::to_string(size_bytes) + " bytes in all"};
}

}  // namespace siltstone
