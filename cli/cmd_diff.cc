#include "siltstone/checkpoint.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

Result<DiffReport> diff_folders(const std::string& from, const std::string& to,
                                const DiffOptions& options) {
  Result<std::unique_ptr<Checkpoint>> a = open_checkpoint(from);
  if (!a) return std::move(a).error();
  Result<std::unique_ptr<Checkpoint>> b = open_checkpoint(to);
  if (!b) return std::move(b).error();
  return diff_checkpoints(**a, **b, options);
}

Result<DiffReport> diff_versions(const Common& common, const std::string& bucket,
                                 const std::string& from, const std::string& to,
                                 const DiffOptions& options) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, bucket);
  if (!repository) return std::move(repository).error();
  Result<Version> a = (*repository)->resolve(from);
  if (!a) return std::move(a).error();
  Result<Version> b = (*repository)->resolve(to);
  if (!b) return std::move(b).error();
  return (*repository)->diff(*a, *b, options);
}

Status run(const Common& common, const std::vector<std::string>& sides) {
  ProgressBar bar(common, "diff");
  const DiffOptions options{common.threads, bar.callback()};
  Result<DiffReport> report = sides.size() == 2
                                  ? diff_folders(sides[0], sides[1], options)
                                  : diff_versions(common, sides[0], sides[1], sides[2], options);
  if (!report) return std::move(report).error();
  Json tensors = Json::array();
  for (const TensorDiff& tensor : report->tensors) {
    say(common, tensor.change + "  " + tensor.name + "  " + format_count(tensor.changed_elements) +
                    " of " + format_count(tensor.elements) + " (" +
                    format_percent(tensor.changed_elements, tensor.elements) + ")");
    tensors.push_back({{"name", tensor.name},
                       {"change", tensor.change},
                       {"elements", tensor.elements},
                       {"changed_elements", tensor.changed_elements}});
  }
  say(common, report->tensors.empty()
                  ? "no difference"
                  : format_count(report->changed_elements) + " of " +
                        format_count(report->total_elements) + " elements differ (" +
                        format_percent(report->changed_elements, report->total_elements) + ")");
  emit(common, {{"from_root", report->from_root},
                {"to_root", report->to_root},
                {"changed_elements", report->changed_elements},
                {"total_elements", report->total_elements},
                {"tensors", std::move(tensors)}});
  return {};
}

}  // namespace

void add_diff(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "diff", "Compare two versions of a bucket, or two checkpoints on disk",
               "siltstone diff /data/bucket main@3 main@7\n"
               "  siltstone diff run/step_0003 run/step_0007");
  add_work_options(verb, context);
  add_store_options(verb, context);
  auto sides = std::make_shared<std::vector<std::string>>();
  verb->add_option("SIDES", *sides, "BUCKET VERSION VERSION, or CHECKPOINT CHECKPOINT")
      ->required()
      ->expected(2, 3);
  verb->callback([&context, sides] {
    context.run = [&context, sides] { return run(context.common, *sides); };
  });
}

}  // namespace siltstone::cli
