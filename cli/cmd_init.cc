#include "siltstone/store.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string bucket;
  InitOptions options;
};

Status run(const Common& common, const Arguments& arguments) {
  Result<std::shared_ptr<Store>> store = open_store(arguments.bucket, common.store);
  if (!store) return std::move(store).error();
  Result<std::unique_ptr<Repository>> repository =
      Repository::init(*std::move(store), arguments.options);
  if (!repository) return std::move(repository).error();
  const RepositoryInfo info = (*repository)->info();
  say(common, "created repository " + info.repo_id + " in " + info.url);
  if (info.single_writer) note(common, kSingleWriterRemark);
  emit(common,
       {{"repo_id", info.repo_id}, {"url", info.url}, {"single_writer", info.single_writer}});
  return {};
}

}  // namespace

void add_init(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "init", "Create a repository in an empty bucket",
                            "siltstone init /data/bucket");
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_flag("--single-writer", arguments->options.single_writer,
                 "Take a store that cannot keep two writers apart");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
