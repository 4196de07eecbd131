#include <algorithm>

#include "siltstone/checkpoint.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string checkpoint;
  PublishOptions options;
  std::string cache;
  bool no_cache = false;
};

double bits_per_changed(const PublishReport& report) {
  return report.kind == ArtifactKind::kDelta
             ? 8 * ratio(report.section_bytes, report.changed_elements)
             : 0;
}

Json to_json(const PublishReport& report) {
  return {{"version", report.version.id.name()},
          {"kind", report.kind == ArtifactKind::kDelta ? "delta" : "anchor"},
          {"anchor_written", report.version.artifacts.back().kind == ArtifactKind::kAnchor},
          {"bytes_written", report.bytes_written},
          {"section_bytes", report.section_bytes},
          {"changed_elements", report.changed_elements},
          {"total_elements", report.total_elements},
          {"total_bytes", report.total_bytes},
          {"bits_per_changed_element", bits_per_changed(report)},
          {"seconds", report.seconds},
          {"base", report.base},
          {"single_writer", report.single_writer},
          {"root", report.version.root}};
}

std::string to_line(const PublishReport& report) {
  std::string line = report.version.id.name() + "  ";
  if (report.kind == ArtifactKind::kAnchor) {
    line += "anchor, " + format_count(report.total_elements) + " elements";
  } else {
    line += "delta, " + format_count(report.changed_elements) + " of " +
            format_count(report.total_elements) + " elements changed (" +
            format_percent(report.changed_elements, report.total_elements) + ", " +
            format_fixed(bits_per_changed(report), 2) + " bits each)";
    if (report.version.artifacts.back().kind == ArtifactKind::kAnchor) line += ", and an anchor";
  }
  return line + ", wrote " + format_bytes(report.bytes_written) + " for " +
         format_bytes(report.total_bytes) + " in " + format_fixed(report.seconds, 2) + " s";
}

Status run(const Common& common, Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  Result<std::unique_ptr<Checkpoint>> checkpoint = open_checkpoint(arguments.checkpoint);
  if (!checkpoint) return std::move(checkpoint).error();
  for (const std::string& skipped : (*checkpoint)->skipped()) note(common, "skipped " + skipped);
  PublishOptions& options = arguments.options;
  options.threads = common.threads;
  options.memory_bytes = common.memory_bytes;
  if (!arguments.no_cache) {
    options.cache =
        arguments.cache.empty() ? default_cache() : std::filesystem::path(arguments.cache);
  }
  ProgressBar bar(common, "publish");
  options.progress = bar.callback();
  Result<PublishReport> report = (*repository)->publish(**checkpoint, options);
  if (!report) return std::move(report).error().in("publish '" + arguments.checkpoint + "'");
  say(common, to_line(*report));
  if (report->single_writer) note(common, kSingleWriterRemark);
  emit(common, to_json(*report));
  return {};
}

}  // namespace

void add_publish(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "publish", "Make a checkpoint the next version of a branch",
               "siltstone publish /data/bucket run/step_0012 --step 12");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  PublishOptions& options = arguments->options;
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("CHECKPOINT", arguments->checkpoint,
                   "A .safetensors file or a Hugging Face model folder")
      ->required();
  verb->add_option("-b,--branch", options.branch, "Branch (default: main)");
  verb->add_option("-m,--message", options.message, "Text kept with the version");
  verb->add_option("--step", options.step, "The trainer's own step number, kept with the version");
  verb->add_option("--parent", options.parent, "Refuse unless VERSION is the branch's head");
  verb->add_option("--codec", options.codec, "Force one codec (default: chosen per tile)");
  verb->add_option_function<std::string>(
      "--effort",
      [&options](const std::string& name) {
        const auto found = std::ranges::find(kEfforts, name, effort_name);
        if (found == kEfforts.end())
          throw CLI::ValidationError("--effort", "'" + name + "' is not fast, default or max");
        options.effort = *found;
      },
      "What smaller deltas may cost: fast, default or max (see 'siltstone bench')");
  verb->add_flag("--momentum", options.momentum,
                 "Smaller deltas for readers that take every version: coded by how the last one "
                 "moved the words");
  verb->add_flag("--pack-anchors", options.pack_anchors,
                 "Make anchors about a third smaller; other programs cannot load them then");
  verb->add_option("--cache", arguments->cache,
                   "Folder of the base cache (default: $SILTSTONE_CACHE or ~/.cache/siltstone)");
  verb->add_flag("--no-cache", arguments->no_cache, "Read the previous version from the bucket");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
