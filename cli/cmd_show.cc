#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string version = "main";
};

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  Result<Version> version = (*repository)->resolve(arguments.version);
  if (!version) return std::move(version).error();
  say(common, "version   " + version->id.name());
  say(common, "commit    " + version->id.commit_hash);
  say(common, "root      " + version->root);
  say(common, "parent    " + (version->parent ? version->parent->name() : "none"));
  say(common, "epoch     " + std::to_string(version->epoch));
  say(common, "time      " + version->time);
  if (version->step) say(common, "step      " + std::to_string(*version->step));
  if (!version->message.empty()) say(common, "message   " + version->message);
  for (const ArtifactInfo& artifact : version->artifacts) {
    const bool anchor = artifact.kind == ArtifactKind::kAnchor;
    std::string line = std::string(anchor ? "anchor    " : "delta     ") +
                       format_bytes(artifact.bytes) + " in " + std::to_string(artifact.objects) +
                       (artifact.objects == 1 ? " object" : " objects");
    if (artifact.packed) line += ", packed";
    if (!anchor) line += ", " + format_count(artifact.changed_elements) + " elements changed";
    say(common, line);
  }
  emit(common, describe(*version));
  return {};
}

}  // namespace

void add_show(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "show", "Show one version",
                            "siltstone show /data/bucket tag:release-1");
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("VERSION", arguments->version, "Version (default: main)");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
