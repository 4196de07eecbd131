#include "refs.h"
#include "verbs.h"

namespace siltstone::cli {

void add_branch(CLI::App& app, Context& context) {
  add_ref_verb(app, context,
               {"branch", "branches", "Start a branch at a version, or list the branches",
                "siltstone branch /data/bucket experiment main@12", &Repository::branch,
                &Repository::branches});
}

}  // namespace siltstone::cli
