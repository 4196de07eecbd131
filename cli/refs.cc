#include "refs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  std::string name;
  std::string version = "main";
};

Status list(const Common& common, Repository& repository, const RefVerb& kind) {
  Result<std::vector<RefInfo>> refs = (repository.*kind.list)();
  if (!refs) return std::move(refs).error();
  Json items = Json::array();
  for (const RefInfo& ref : *refs) {
    say(common, ref.name + "  " + ref.target.name());
    items.push_back({{"name", ref.name}, {"version", ref.target.name()}});
  }
  emit(common, {{kind.plural, std::move(items)}});
  return {};
}

Status run(const Common& common, const Arguments& arguments, const RefVerb& kind) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  if (arguments.name.empty()) return list(common, **repository, kind);
  Result<Version> version = (*repository)->resolve(arguments.version);
  if (!version) return std::move(version).error();
  Status made = ((**repository).*kind.make)(arguments.name, *version);
  if (!made) return made;
  say(common, std::string(kind.name) + " " + arguments.name + " is " + version->id.name());
  emit(common,
       {{kind.name, arguments.name}, {"version", version->id.name()}, {"root", version->root}});
  return {};
}

}  // namespace

void add_ref_verb(CLI::App& app, Context& context, const RefVerb& kind) {
  CLI::App* verb = add_verb(app, context, kind.name, kind.description, kind.example);
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("NAME", arguments->name, "Name to make; without it, all are listed");
  verb->add_option("VERSION", arguments->version, "Version it names (default: main)");
  verb->callback([&context, arguments, kind] {
    context.run = [&context, arguments, kind] { return run(context.common, *arguments, kind); };
  });
}

}  // namespace siltstone::cli
