#include "verbs.h"

namespace siltstone::cli {

void add_all_verbs(CLI::App& app, Context& context) {
  using Add = void (*)(CLI::App&, Context&);
  static constexpr Add kVerbs[] = {
      add_init,   add_publish, add_log,    add_show,    add_diff,  add_checkout, add_pull,
      add_verify, add_tag,     add_branch, add_inspect, add_bench, add_import,   add_export,
#ifdef SILTSTONE_HAS_RELAY
      add_relay,
#endif
  };
  for (const Add add : kVerbs) add(app, context);
}

}  // namespace siltstone::cli
