// The command-line program: parses, runs one verb, maps its error to an exit status.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <new>

#include "verbs.h"

namespace {

constexpr const char* kDescription =
    "siltstone: publish model weights as versions that carry only the bits that changed, and "
    "follow\n"
    "them anywhere, bit for bit.\n\n"
    "BUCKET is a directory (or file:///path). VERSION is main@12, main (its head), tag:NAME or\n"
    "root:HEXPREFIX.";

constexpr const char* kFooter =
    "Exit status: 0 ok, 1 failure, 2 usage, 3 not found, 4 integrity, 5 conflict, 6 permission,\n"
    "7 network.\n\n"
    "Example:\n"
    "  siltstone init /data/bucket\n"
    "  siltstone publish /data/bucket run/step_0001\n"
    "  siltstone pull /data/bucket replica --follow";

constexpr int kUsage = 2;
constexpr int kFailure = 1;

int run(int argc, char** argv) {
  using siltstone::cli::Context;
  CLI::App app{kDescription, "siltstone"};
  app.footer(kFooter);
  app.set_version_flag("--version", SILTSTONE_VERSION);
  app.require_subcommand(1);
  Context context;
  siltstone::cli::add_all_verbs(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : kUsage;
  }
  const siltstone::Status status = context.run();
  if (!status) {
    siltstone::cli::print_error(context.common, status.error());
    return siltstone::cli::exit_status(status.error().code);
  }
  // A full disk or a closed pipe behind stdout must not pass for success.
  if (std::fflush(stdout) != 0) {
    std::fprintf(stderr, "siltstone: cannot write the result to standard output\n");
    return kFailure;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "siltstone: out of memory; a smaller --memory or --threads may help\n");
    return kFailure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "siltstone: unexpected: %s\n", error.what());
    return kFailure;
  }
}
