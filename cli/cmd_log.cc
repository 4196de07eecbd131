#include <map>

#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string branch = "main";
  uint64_t limit = UINT64_MAX;
};

std::string artifact_text(const Version& version) {
  if (version.fence) return "fence";
  std::string text;
  for (const ArtifactInfo& artifact : version.artifacts) {
    if (!text.empty()) text += " + ";
    text += artifact.kind == ArtifactKind::kAnchor ? "anchor " : "delta ";
    text += format_bytes(artifact.bytes);
  }
  return text;
}

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  Result<std::vector<Version>> versions = (*repository)->log(arguments.branch, arguments.limit);
  if (!versions) return std::move(versions).error();
  Result<std::vector<RefInfo>> tags = (*repository)->tags();
  // A bucket behind plain HTTP cannot be listed; it has a log all the same.
  if (!tags && tags.error().code == Code::kUnsupported) tags = std::vector<RefInfo>();
  if (!tags) return std::move(tags).error();
  std::map<std::string, std::vector<std::string>> tags_of;
  for (const RefInfo& tag : *tags) tags_of[tag.target.commit_hash].push_back(tag.name);
  Json list = Json::array();
  for (const Version& version : *versions) {
    const std::vector<std::string>& names = tags_of[version.id.commit_hash];
    std::string line = version.id.name() + "  " + version.time + "  root " +
                       version.root.substr(0, 12) + "  " + artifact_text(version);
    if (version.step) line += "  step " + std::to_string(*version.step);
    for (const std::string& name : names) line += "  (tag: " + name + ")";
    if (!version.message.empty()) line += "  " + version.message;
    say(common, line);
    Json item = describe(version);
    item["tags"] = names;
    list.push_back(std::move(item));
  }
  emit(common, {{"versions", std::move(list)}});
  return {};
}

}  // namespace

void add_log(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "log", "List the versions of a branch, newest first",
                            "siltstone log /data/bucket -n 10");
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("-b,--branch", arguments->branch, "Branch, or any VERSION to start from");
  verb->add_option("-n,--limit", arguments->limit, "At most so many");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
