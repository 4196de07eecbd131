// Names from files, checked before use and made harmless before they are shown.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace siltstone {

// The first byte that is not well-formed UTF-8; empty if all of it is.
std::optional<size_t> find_invalid_utf8(std::string_view text);

// Valid UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F).
bool is_clean_text(std::string_view text);

// A file or folder name that may travel: clean text, not empty, no '/', not "." or "..".
bool is_clean_component(std::string_view component);

// 'text' for messages: what is_clean_text refuses appears as \xNN, and a long text is cut.
std::string quote(std::string_view text);

// "[2,3]"
std::string show_shape(std::span<const int64_t> shape);

}  // namespace siltstone
