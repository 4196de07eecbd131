#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string version;
  std::string folder;
  bool force = false;
};

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  Result<Version> version = (*repository)->resolve(arguments.version);
  if (!version) return std::move(version).error();
  ProgressBar bar(common, "checkout");
  const CheckoutOptions options{arguments.force, common.threads, common.memory_bytes,
                                bar.callback()};
  Result<CheckoutReport> report = (*repository)->checkout(*version, arguments.folder, options);
  if (!report) return std::move(report).error().in("check out " + version->id.name());
  say(common, version->id.name() + " is in " + arguments.folder + ": " +
                  std::to_string(report->files) + " files, " + format_bytes(report->bytes_written) +
                  ", in " + format_fixed(report->seconds, 2) + " s");
  emit(common, {{"version", version->id.name()},
                {"bytes_fetched", report->bytes_fetched},
                {"bytes_written", report->bytes_written},
                {"files", report->files},
                {"seconds", report->seconds},
                {"root", version->root}});
  return {};
}

}  // namespace

void add_checkout(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "checkout",
                            "Rebuild a version in an empty folder, every file byte for byte",
                            "siltstone checkout /data/bucket main@7 restored");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("VERSION", arguments->version, "Version")->required();
  verb->add_option("DIR", arguments->folder, "Folder, absent or empty")->required();
  verb->add_flag("-f,--force", arguments->force, "Replace a folder that is not empty");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
