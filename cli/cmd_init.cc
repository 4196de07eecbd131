#include "siltstone/store.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

Status run(const Common& common, const std::string& bucket) {
  Result<std::shared_ptr<Store>> store = open_store(bucket);
  if (!store) return std::move(store).error();
  Result<std::unique_ptr<Repository>> repository = Repository::init(*std::move(store));
  if (!repository) return std::move(repository).error();
  const RepositoryInfo info = (*repository)->info();
  say(common, "created repository " + info.repo_id + " in " + info.url);
  emit(common, {{"repo_id", info.repo_id}, {"url", info.url}});
  return {};
}

}  // namespace

void add_init(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "init", "Create a repository in an empty bucket",
                            "siltstone init /data/bucket");
  auto bucket = std::make_shared<std::string>();
  verb->add_option("BUCKET", *bucket, "Directory or URL")->required();
  verb->callback([&context, bucket] {
    context.run = [&context, bucket] { return run(context.common, *bucket); };
  });
}

}  // namespace siltstone::cli
