#include "tensor/strict_sax.h"

#include "tensor/text.h"

namespace siltstone {

Status StrictSax::parse(std::string_view text, std::string_view what) {
  what_ = what;
  text_bytes_ = text.size();
  // The parser takes a NUL byte for the end of its input and would not see what stands behind it.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Error{Code::kCorrupt, what_ + " has a NUL byte at byte " + std::to_string(nul)};
  }
  if (const auto invalid = find_invalid_utf8(text)) {
    return Error{Code::kCorrupt, what_ + " is not valid UTF-8 at byte " + std::to_string(*invalid)};
  }
  const bool parsed = Json::sax_parse(text.begin(), text.end(), this);
  if (!outcome_) return outcome_;
  if (!parsed) return Error{Code::kInternal, what_ + ": the parser stopped without an error"};
  return {};
}

bool StrictSax::fail(Code code, std::string message) {
  if (outcome_) outcome_ = Error{code, std::move(message)};
  return false;
}

bool StrictSax::number_integer(number_integer_t value) {
  return unexpected("the number " + (value == 0 ? "-0" : std::to_string(value)));
}

bool StrictSax::number_unsigned(number_unsigned_t value) {
  return unexpected("the number " + std::to_string(value));
}

bool StrictSax::number_float(number_float_t /*value*/, const string_t& text) {
  return unexpected("the number " + text.substr(0, 40));
}

bool StrictSax::string(string_t& value) {
  return unexpected("the string " + quote(value));
}

bool StrictSax::binary(binary_t& /*value*/) {
  return unexpected("binary data");  // not in JSON text: the interface asks for it
}

bool StrictSax::start_object(size_t /*elements*/) {
  return unexpected("an object");
}

bool StrictSax::start_array(size_t /*elements*/) {
  return unexpected("an array");
}

bool StrictSax::parse_error(size_t position, const std::string& /*last_token*/,
                            const nlohmann::detail::exception& /*error*/) {
  // Our own sentence: the parser's differs from version to version and repeats the input.
  if (position > text_bytes_) {
    return fail(what_ + " is not valid JSON: it ends after " + std::to_string(text_bytes_) +
                " bytes, before its last value does");
  }
  return fail(what_ + " is not valid JSON near byte " +
              std::to_string(position == 0 ? 0 : position - 1));
}

}  // namespace siltstone
