// Object names and the errors that every store gives for them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "siltstone/result.h"

namespace siltstone {

// Whether `component` may stand between the slashes of an object name.
bool is_name_component(std::string_view component);

// Whether some legal object name may start with `prefix`; true of "".
bool is_object_prefix(std::string_view prefix);

// kInvalidArgument unless the name or prefix is legal. Bytes outside ASCII are shown as hex.
Status check_object_name(std::string_view name);
Status check_object_prefix(std::string_view prefix);

Error no_such_object(std::string_view name, std::string_view url);
Error object_exists(std::string_view name, std::string_view url);

// kCorrupt unless the object holds the whole range.
Status check_range(std::string_view name, uint64_t size_bytes, uint64_t offset_bytes,
                   uint64_t length_bytes);

}  // namespace siltstone
