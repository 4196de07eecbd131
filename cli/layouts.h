// What the verbs import and export share: the names of layouts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "siltstone/interchange.h"

namespace siltstone::cli {

inline std::vector<std::string> layout_names() {
  std::vector<std::string> names;
  for (const Layout layout : kLayouts) names.emplace_back(layout_name(layout));
  return names;
}

inline std::optional<Layout> find_layout(const std::string& name) {
  for (const Layout layout : kLayouts) {
    if (layout_name(layout) == name) return layout;
  }
  return std::nullopt;
}

}  // namespace siltstone::cli
