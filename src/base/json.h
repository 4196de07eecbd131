// Bounded JSON: parsing refuses too many bytes, too deep nesting, duplicate keys and invalid UTF-8
// before anything is built from it.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "siltstone/result.h"

namespace siltstone {

// Objects keep their keys sorted: dumping is deterministic.
using Json = nlohmann::json;

struct JsonLimits {
  size_t bytes = 64 * 1024;
  unsigned depth = 8;
};

// kCorrupt, with the byte where the text stops being JSON.
Result<Json> parse_json(std::string_view text, JsonLimits limits = {});

// Typed members of an object; kCorrupt naming the key when absent or of another type.
Result<std::string> json_string(const Json& object, const char* key);
Result<uint64_t> json_uint(const Json& object, const char* key);
Result<const Json*> json_array(const Json& object, const char* key);
Result<const Json*> json_object(const Json& object, const char* key);

}  // namespace siltstone
