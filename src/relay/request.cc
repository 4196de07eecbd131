#include "relay/request.h"

#include <algorithm>
#include <charconv>

namespace siltstone::relay {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// Digits alone; what is beyond 64 bits is the largest number.
std::optional<uint64_t> number(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? value : UINT64_MAX;
}

RangeAnswer last_bytes(uint64_t count, uint64_t length_bytes) {
  if (count == 0 || length_bytes == 0) return {RangeAnswer::Kind::kOutside, {}};
  count = std::min(count, length_bytes);
  return {RangeAnswer::Kind::kPart, {length_bytes - count, count}};
}

}  // namespace

RangeAnswer answer_range(const char* header, uint64_t length_bytes) {
  const RangeAnswer whole{RangeAnswer::Kind::kWhole, {0, length_bytes}};
  constexpr std::string_view kUnit = "bytes=";
  std::string_view text = header == nullptr ? std::string_view() : trimmed(header);
  if (!text.starts_with(kUnit)) return whole;
  text = trimmed(text.substr(kUnit.size()));
  const size_t dash = text.find('-');
  if (dash == text.npos) return whole;
  const std::string_view first = text.substr(0, dash);
  const std::string_view last = text.substr(dash + 1);
  const std::optional<uint64_t> begin = number(first);
  const std::optional<uint64_t> end = number(last);
  if (first.empty()) return end ? last_bytes(*end, length_bytes) : whole;
  if (!begin || (!last.empty() && !end) || (end && *end < *begin)) return whole;
  if (*begin >= length_bytes) return {RangeAnswer::Kind::kOutside, {}};
  const uint64_t stop = end ? std::min(*end, length_bytes - 1) : length_bytes - 1;
  return {RangeAnswer::Kind::kPart, {*begin, stop - *begin + 1}};
}

std::optional<uint64_t> preferred_wait_seconds(const char* header) {
  constexpr std::string_view kWait = "wait=";
  std::string_view rest = header == nullptr ? std::string_view() : header;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    std::string_view preference = rest.substr(0, comma);
    rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
    preference = trimmed(preference.substr(0, preference.find(';')));
    if (preference.starts_with(kWait)) return number(preference.substr(kWait.size()));
  }
  return std::nullopt;
}

}  // namespace siltstone::relay
