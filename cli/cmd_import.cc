#include <algorithm>

#include "layouts.h"
#include "siltstone/interchange.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string folder;
  std::string format;
  std::string base;
  ImportOptions options;
};

Status run(const Common& common, Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  ImportOptions& options = arguments.options;
  options.layout = find_layout(arguments.format);
  options.base = arguments.base;
  options.publish.threads = common.threads;
  options.publish.memory_bytes = common.memory_bytes;
  ProgressBar bar(common, "import");
  options.publish.progress = bar.callback();
  Json versions = Json::array();
  options.on_version = [&](const PublishReport& published) {
    const Version& version = published.version;
    const bool delta = published.kind == ArtifactKind::kDelta;
    say(common, version.id.name() + "  step " + std::to_string(*version.step) + ", " +
                    (delta ? format_count(published.changed_elements) + " elements changed"
                           : std::string("anchor")) +
                    ", wrote " + format_bytes(published.bytes_written));
    versions.push_back({{"version", version.id.name()},
                        {"step", *version.step},
                        {"kind", delta ? "delta" : "anchor"},
                        {"changed_elements", published.changed_elements},
                        {"bytes_written", published.bytes_written},
                        {"root", version.root}});
  };
  Result<ImportReport> report = import_versions(**repository, arguments.folder, options);
  if (!report) return std::move(report).error().in("import '" + arguments.folder + "'");
  for (const std::string& skipped : report->skipped) note(common, "skipped " + skipped);
  if (!report->pending.empty()) note(common, "not finished yet: " + report->pending);
  if (report->versions == 0) say(common, "nothing new");
  emit(common, {{"format", layout_name(report->layout)},
                {"head", report->head ? Json(report->head->id.name()) : Json(nullptr)},
                {"versions", std::move(versions)},
                {"skipped", report->skipped},
                {"pending", report->pending},
                {"bytes_written", report->bytes_written},
                {"seconds", report->seconds}});
  return {};
}

}  // namespace

void add_import(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "import",
                            "Publish the versions of a folder that TRL's prototype or slime wrote",
                            "siltstone import /data/bucket /shared/weights --base models/start");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  ImportOptions& options = arguments->options;
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("DIR", arguments->folder,
                   "Holds anchors/ and deltas/ (trl), or weight_vNNNNNN/ (slime)")
      ->required();
  verb->add_option("-b,--branch", options.publish.branch, "Branch (default: main)");
  verb->add_option("--format", arguments->format, "trl or slime (default: by what DIR holds)")
      ->check(CLI::IsMember(layout_names()));
  verb->add_option("--base", arguments->base,
                   "The model that the first delta builds on; becomes step 0");
  verb->add_flag("--unchecked", options.unchecked,
                 "Accept digests that cannot be computed (blake3), and gaps in trl's numbering");
  verb->add_flag("--momentum", options.publish.momentum,
                 "Smaller deltas for readers that take every version");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
