#include <algorithm>
#include <array>

#include "delta/codecs/codecs.h"

namespace siltstone {
namespace {

const auto& table() {
  static const std::array<const Codec*, 6> codecs = {
      &raw_codec(),   &step_codec(),        &dense_codec(),
      &class_codec(), &dense_delta_codec(), &momentum_codec(),
  };
  return codecs;
}

template <class Matches>
const Codec* find_if(Matches matches) {
  const auto found = std::ranges::find_if(table(), matches);
  return found == table().end() ? nullptr : *found;
}

}  // namespace

std::string_view effort_name(Effort effort) {
  switch (effort) {
    case Effort::kFast:
      return "fast";
    case Effort::kDefault:
      return "default";
    case Effort::kMax:
      break;
  }
  return "max";
}

std::span<const Codec* const> all_codecs() {
  return table();
}

const Codec* find_codec(uint16_t id) {
  return find_if([id](const Codec* codec) { return codec->id() == id; });
}

const Codec* find_codec(std::string_view name) {
  return find_if([name](const Codec* codec) { return codec->name() == name; });
}

}  // namespace siltstone
