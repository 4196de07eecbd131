#include "base/json.h"

#include <set>
#include <vector>

#include "base/try.h"

namespace siltstone {
namespace {

// Watches the events of a parse for what the JSON grammar allows and we do not.
class Guard {
 public:
  explicit Guard(unsigned depth) : max_depth_(depth) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys_.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (static_cast<unsigned>(depth) >= max_depth_) fail("nested too deeply");
        break;
      case Json::parse_event_t::key:
        if (!keys_.back().insert(value.get<std::string>()).second) {
          fail("key '" + value.get<std::string>() + "' stands twice in one object");
        }
        break;
      case Json::parse_event_t::object_end:
        keys_.pop_back();
        break;
      default:
        break;
    }
    return problem_.empty();
  }

  const std::string& problem() const { return problem_; }

 private:
  void fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }

  unsigned max_depth_;
  std::vector<std::set<std::string>> keys_;
  std::string problem_;
};

Error missing(const char* key, const char* type) {
  return {Code::kCorrupt, std::string("JSON key '") + key + "' is missing or is not " + type};
}

const Json* member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

}  // namespace

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
  if (text.size() > limits.bytes) {
    return Error{Code::kCorrupt, "JSON text has " + std::to_string(text.size()) +
                                     " bytes, at most " + std::to_string(limits.bytes) +
                                     " are allowed"};
  }
  // The parser takes a NUL byte for the end of its input and would not see what stands behind it.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Error{Code::kCorrupt, "JSON text has a NUL byte at byte " + std::to_string(nul)};
  }
  Guard guard(limits.depth);
  Json value = Json::parse(
      text,
      [&guard](int depth, Json::parse_event_t event, Json& v) { return guard(depth, event, v); },
      /*allow_exceptions=*/false);
  if (!guard.problem().empty()) return Error{Code::kCorrupt, "JSON: " + guard.problem()};
  if (value.is_discarded()) return Error{Code::kCorrupt, "text is not valid JSON"};
  return value;
}

Result<std::string> json_string(const Json& object, const char* key) {
  const Json* value = member(object, key);
  if (value == nullptr || !value->is_string()) return missing(key, "a string");
  return value->get<std::string>();
}

Result<uint64_t> json_uint(const Json& object, const char* key) {
  const Json* value = member(object, key);
  if (value == nullptr || !value->is_number_unsigned()) return missing(key, "an unsigned integer");
  return value->get<uint64_t>();
}

Result<const Json*> json_array(const Json& object, const char* key) {
  const Json* value = member(object, key);
  if (value == nullptr || !value->is_array()) return missing(key, "an array");
  return value;
}

Result<const Json*> json_object(const Json& object, const char* key) {
  const Json* value = member(object, key);
  if (value == nullptr || !value->is_object()) return missing(key, "an object");
  return value;
}

}  // namespace siltstone
