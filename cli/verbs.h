// The list of verbs.
#pragma once

#include <CLI/CLI.hpp>

#include "output.h"

namespace siltstone::cli {

void add_init(CLI::App& app, Context& context);
void add_publish(CLI::App& app, Context& context);
void add_log(CLI::App& app, Context& context);
void add_show(CLI::App& app, Context& context);
void add_diff(CLI::App& app, Context& context);
void add_checkout(CLI::App& app, Context& context);
void add_pull(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_tag(CLI::App& app, Context& context);
void add_branch(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_import(CLI::App& app, Context& context);
void add_export(CLI::App& app, Context& context);
void add_relay(CLI::App& app, Context& context);  // where the build has it

void add_all_verbs(CLI::App& app, Context& context);

}  // namespace siltstone::cli
