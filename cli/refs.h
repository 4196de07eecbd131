// What the verbs tag and branch share: list the names, or make one for a version.
#pragma once

#include <string>
#include <vector>

#include "output.h"

namespace siltstone::cli {

struct RefVerb {
  const char* name;    // "tag"
  const char* plural;  // "tags"
  const char* description;
  const char* example;
  Status (Repository::*make)(std::string_view name, const Version& version);
  Result<std::vector<RefInfo>> (Repository::*list)();
};

void add_ref_verb(CLI::App& app, Context& context, const RefVerb& kind);

}  // namespace siltstone::cli
