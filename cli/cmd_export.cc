#include "layouts.h"
#include "siltstone/interchange.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string range;
  std::string folder;
  std::string format;
  ExportOptions options;
};

Status run(const Common& common, Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  ExportOptions& options = arguments.options;
  options.layout = *find_layout(arguments.format);
  options.threads = common.threads;
  options.memory_bytes = common.memory_bytes;
  ProgressBar bar(common, "export");
  options.progress = bar.callback();
  Json versions = Json::array();
  options.on_version = [&](const ExportedVersion& written) {
    const std::string name = written.version.id.name();
    say(common, name + "  " + written.path + ", " + (written.full ? "full" : "delta") + ", wrote " +
                    format_bytes(written.bytes_written));
    versions.push_back({{"version", name},
                        {"path", written.path},
                        {"kind", written.full ? "full" : "delta"},
                        {"changed_elements", written.changed_elements},
                        {"bytes_written", written.bytes_written},
                        {"root", written.version.root}});
  };
  Result<ExportReport> report =
      export_versions(**repository, arguments.range, arguments.folder, options);
  if (!report) return std::move(report).error();
  if (report->versions == 0) say(common, "nothing new: " + arguments.folder + " has it all");
  emit(common, {{"format", arguments.format},
                {"versions", std::move(versions)},
                {"present", report->present},
                {"bytes_written", report->bytes_written},
                {"seconds", report->seconds}});
  return {};
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "export", "Write versions as TRL's prototype or slime would have",
               "siltstone export /data/bucket main@3..main@7 out --format slime");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  ExportOptions& options = arguments->options;
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("RANGE", arguments->range, "A version, FROM..TO, or a branch: all of it")
      ->required();
  verb->add_option("DIR", arguments->folder, "Folder; goes on where it ends")->required();
  verb->add_option("--format", arguments->format, "trl or slime")
      ->required()
      ->check(CLI::IsMember(layout_names()));
  verb->add_option("--encoding", options.encoding,
                   "trl: gap_delta (default), raw or indices; slime: xor (default) or overwrite");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
