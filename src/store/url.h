// Parts of URLs.
#pragma once

#include <string>
#include <string_view>

#include "siltstone/result.h"

namespace siltstone {

Error bad_url(std::string_view url, std::string_view why);

// "file" of "file:///path", in lower case; empty if `url` is a plain path.
std::string scheme_of(std::string_view url);

// Undoes %20 and its like in `text`, a part of `url`.
Result<std::string> percent_decoded(std::string_view url, std::string_view text);

// RFC 3986: everything but letters, digits and -._~ as % and two upper-case digits.
std::string percent_encoded(std::string_view text, bool keep_slashes = false);

}  // namespace siltstone
