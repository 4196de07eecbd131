#include "siltstone/inspect.h"

#include <algorithm>
#include <cstdio>

#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string place;
  std::string version = "main";
  InspectOptions options;
};

Json to_json(const CodecUse& use) {
  return {{"sections", use.sections},
          {"section_bytes", use.section_bytes},
          {"elements", use.elements},
          {"changed_elements", use.changed},
          {"bits_per_changed_element", 8 * ratio(use.section_bytes, use.changed)}};
}

Json to_json(const std::vector<CodecUse>& uses) {
  Json out = Json::object();
  for (const CodecUse& use : uses) out[use.codec] = to_json(use);
  return out;
}

Json to_json(const TensorInspection& tensor) {
  return {{"name", tensor.name},
          {"dtype", dtype_info(tensor.dtype).name},
          {"elements", tensor.elements},
          {"changed_elements", tensor.changed},
          {"section_bytes", tensor.section_bytes},
          {"bits_per_changed_element", 8 * ratio(tensor.section_bytes, tensor.changed)},
          {"codecs", to_json(tensor.codecs)}};
}

Json to_json(const BinadeSteps& binade) {
  const bool floats = dtype_info(binade.dtype).order == WordOrder::kSignMagnitude;
  return {{"dtype", dtype_info(binade.dtype).name},
          {"exponent", floats ? Json(binade.exponent) : Json()},
          {"power_of_2", floats ? Json(binade.power) : Json()},
          {"elements", binade.elements},
          {"changed_elements", binade.changed},
          {"by_steps",
           {{"1", binade.by_size[0]},
            {"2", binade.by_size[1]},
            {"3-4", binade.by_size[2]},
            {"5-8", binade.by_size[3]},
            {"more", binade.by_size[4]}}}};
}

Json to_json(const Inspection& report) {
  Json tensors = Json::array();
  for (const TensorInspection& tensor : report.tensors) tensors.push_back(to_json(tensor));
  Json steps = Json::array();
  for (const BinadeSteps& binade : report.steps) steps.push_back(to_json(binade));
  return {{"packs", report.packs},
          {"bytes", report.bytes},
          {"header_bytes", report.header_bytes},
          {"section_bytes", report.section_bytes},
          {"elements", report.elements},
          {"changed_elements", report.changed},
          {"bits_per_changed_element", 8 * ratio(report.section_bytes, report.changed)},
          {"codecs", to_json(report.codecs)},
          {"tensors", std::move(tensors)},
          {"steps", std::move(steps)}};
}

// A table whose first column is as wide as it needs to be.
class Table {
 public:
  explicit Table(std::vector<std::string> head) { add(std::move(head)); }
  void add(std::vector<std::string> row) {
    for (size_t c = 0; c < row.size(); ++c) {
      if (widths_.size() <= c) widths_.push_back(0);
      widths_[c] = std::max(widths_[c], row[c].size());
    }
    rows_.push_back(std::move(row));
  }
  // Left to right: the first `left` columns flush left, the others flush right.
  void say(const Common& common, size_t left) const {
    for (const auto& row : rows_) {
      std::string line;
      for (size_t c = 0; c < row.size(); ++c) {
        const std::string blank(widths_[c] - row[c].size(), ' ');
        if (c > 0) line += "  ";
        line += c < left ? row[c] + blank : blank + row[c];
      }
      cli::say(common, line);
    }
  }

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<size_t> widths_;
};

std::string codecs_of(const std::vector<CodecUse>& uses) {
  std::string names;
  for (const CodecUse& use : uses) names += (names.empty() ? "" : ",") + use.codec;
  return names;
}

std::string bits(uint64_t bytes, uint64_t changed) {
  return format_fixed(8 * ratio(bytes, changed), 3);
}

void say_tensors(const Common& common, const Inspection& report) {
  Table table(
      {"tensor", "dtype", "codec", "elements", "changed", "density", "bytes", "bits/change"});
  const auto add = [&](const std::string& name, const std::string& dtype, const std::string& codec,
                       uint64_t elements, uint64_t changed, uint64_t bytes) {
    table.add({name, dtype, codec, format_count(elements), format_count(changed),
               format_percent(changed, elements), format_count(bytes), bits(bytes, changed)});
  };
  for (const TensorInspection& tensor : report.tensors)
    add(tensor.name, std::string(dtype_info(tensor.dtype).name), codecs_of(tensor.codecs),
        tensor.elements, tensor.changed, tensor.section_bytes);
  add("all", "", codecs_of(report.codecs), report.elements, report.changed, report.section_bytes);
  table.say(common, 3);
}

void say_codecs(const Common& common, const Inspection& report) {
  for (const CodecUse& use : report.codecs)
    say(common, use.codec + ": " + format_count(use.sections) +
                    (use.sections == 1 ? " section, " : " sections, ") +
                    format_bytes(use.section_bytes) + ", " + format_count(use.changed) +
                    " changes, " + bits(use.section_bytes, use.changed) + " bits each");
}

std::string binade_name(const BinadeSteps& binade) {
  if (dtype_info(binade.dtype).order != WordOrder::kSignMagnitude) return "all";
  return (binade.exponent == 0 ? "< 2^" : "2^") + std::to_string(binade.power);
}

void say_steps(const Common& common, const Inspection& report) {
  Table table(
      {"dtype", "old word", "elements", "changed", "density", "1 step", "2", "3-4", "5-8", "more"});
  for (const BinadeSteps& binade : report.steps) {
    std::vector<std::string> row = {std::string(dtype_info(binade.dtype).name), binade_name(binade),
                                    format_count(binade.elements), format_count(binade.changed),
                                    format_percent(binade.changed, binade.elements)};
    for (const uint64_t count : binade.by_size) row.push_back(format_count(count));
    table.add(std::move(row));
  }
  table.say(common, 2);
}

Result<Inspection> look(const Common& common, const Arguments& arguments) {
  InspectOptions options = arguments.options;
  options.threads = common.threads;
  ProgressBar bar(common, "inspect");
  options.progress = bar.callback();
  if (std::filesystem::is_regular_file(arguments.place))
    return inspect_pack(arguments.place, options);
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.place);
  if (!repository) return std::move(repository).error();
  Result<Version> version = (*repository)->resolve(arguments.version);
  if (!version) return std::move(version).error();
  return inspect(**repository, *version, options);
}

Status run(const Common& common, const Arguments& arguments) {
  Result<Inspection> report = look(common, arguments);
  if (!report) return std::move(report).error().in("'" + arguments.place + "'");
  say_tensors(common, *report);
  say(common, "");
  say_codecs(common, *report);
  say(common, format_count(report->packs) + (report->packs == 1 ? " pack" : " packs") + " of " +
                  format_bytes(report->bytes) + ": sections " +
                  format_bytes(report->section_bytes) + ", JSON headers " +
                  format_bytes(report->header_bytes));
  if (arguments.options.steps) {
    say(common, "");
    say_steps(common, *report);
  }
  emit(common, to_json(*report));
  return {};
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, context, "inspect",
                            "Show what a version's delta is made of: codecs, densities, bits",
                            "siltstone inspect /data/bucket main@7 --steps\n"
                            "  siltstone inspect 0-0.safetensors --tensor '*.weight'");
  auto arguments = std::make_shared<Arguments>();
  add_work_options(verb, context);
  add_store_options(verb, context);
  verb->add_option("BUCKET", arguments->place,
                   "Bucket (directory or URL), or the file of one delta pack")
      ->required();
  verb->add_option("VERSION", arguments->version, "Version (default: main)");
  verb->add_option("--tensor", arguments->options.tensors, "Only tensors whose names match GLOB");
  verb->add_flag("--steps", arguments->options.steps,
                 "Count by how many steps words of each magnitude moved; reads both states");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
