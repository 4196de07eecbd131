// JSON read as events, for texts too large to build a document from: every event that a derived
// handler does not ask for ends the parse with an error.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "siltstone/result.h"

namespace siltstone {

class StrictSax : public nlohmann::json_sax<Json> {
 public:
  // Feeds the whole text to the handler. kCorrupt if it is not one JSON value in valid UTF-8, or
  // the error that an event was answered with. `what` names the text in messages: "the header".
  Status parse(std::string_view text, std::string_view what);

  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override;  // has a minus sign
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t value, const string_t& text) override;
  bool string(string_t& value) override;
  bool binary(binary_t& value) override;
  bool start_object(size_t elements) override;
  bool start_array(size_t elements) override;
  bool end_array() override { return true; }
  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error) override;

 protected:
  // Ends the parse: the value that begins does not belong where it stands.
  virtual bool unexpected(const std::string& found) = 0;

  // Ends the parse.
  bool fail(Code code, std::string message);
  bool fail(std::string message) { return fail(Code::kCorrupt, std::move(message)); }

 private:
  Status outcome_;
  std::string what_;
  size_t text_bytes_ = 0;
};

}  // namespace siltstone
