#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string version;
  bool data = false;
};

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  ProgressBar bar(common, "verify");
  VerifyOptions options;
  if (!arguments.version.empty()) options.version = arguments.version;
  options.data = arguments.data;
  options.threads = common.threads;
  options.memory_bytes = common.memory_bytes;
  options.progress = bar.callback();
  Result<VerifyReport> report = (*repository)->verify(options);
  if (!report) return std::move(report).error();
  const bool ok = report->problems.empty();
  for (const std::string& problem : report->problems) say(common, "problem: " + problem);
  say(common, std::to_string(report->versions) + " versions, " + std::to_string(report->objects) +
                  " objects" +
                  (arguments.data ? ", " + format_bytes(report->bytes) + " read" : "") + ": " +
                  (ok ? "no problems" : std::to_string(report->problems.size()) + " problems"));
  emit(common, {{"ok", ok},
                {"versions", report->versions},
                {"objects", report->objects},
                {"bytes", report->bytes},
                {"problems", report->problems}});
  if (ok) return {};
  return Error{Code::kCorrupt, "the bucket does not hold what its commits promise"};
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "verify", "Check that the bucket holds what its commits promise",
               "siltstone verify /data/bucket --data");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("VERSION", arguments->version, "Only this version (default: all)");
  verb->add_flag("--data", arguments->data, "Read every object and rebuild every version");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
