#include "refs.h"
#include "verbs.h"

namespace siltstone::cli {

void add_tag(CLI::App& app, Context& context) {
  add_ref_verb(
      app, context,
      {"tag", "tags", "Name a version for good, or list the tags",
       "siltstone tag /data/bucket release-1 main@12", &Repository::tag, &Repository::tags});
}

}  // namespace siltstone::cli
