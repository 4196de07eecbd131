#include "siltstone/bench.h"

#include <cstdio>

#include "siltstone/checkpoint.h"
#include "siltstone/codec.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

struct Arguments {
  std::string from;
  std::string to;
  std::string earlier;
  CompareCodecsOptions options;
};

// Dense bytes in 10^9 per second; 0 if the work was too short to be timed.
double speed(const CodecComparison& report, double seconds) {
  return seconds > 0 ? static_cast<double>(report.dense_bytes) / 1e9 / seconds : 0;
}

Json to_json(const CodecComparison& report, const CodecResult& result) {
  Json by_codec = Json::object();
  for (const auto& [name, sections] : result.sections_by_codec) by_codec[name] = sections;
  return {{"name", result.name},
          {"section_bytes", result.section_bytes},
          {"sections", result.sections},
          {"sections_by_codec", std::move(by_codec)},
          {"refused_tensors", result.refused_tensors},
          {"bits_per_changed_element", 8 * ratio(result.section_bytes, report.changed_elements)},
          {"fraction_of_dense", ratio(result.section_bytes, report.dense_bytes)},
          {"encode_seconds", result.encode_seconds},
          {"decode_seconds", result.decode_seconds},
          {"encode_gb_per_second", speed(report, result.encode_seconds)},
          {"decode_gb_per_second", speed(report, result.decode_seconds)},
          {"exact", true}};
}

void say_row(const Common& common, const std::string (&cells)[6]) {
  char line[160];
  std::snprintf(line, sizeof line, "%-11s %15s %12s %10s %12s %12s", cells[0].c_str(),
                cells[1].c_str(), cells[2].c_str(), cells[3].c_str(), cells[4].c_str(),
                cells[5].c_str());
  say(common, line);
}

void say_table(const Common& common, const CodecComparison& report, unsigned rounds) {
  say(common, format_count(report.tensors) + " tensors, " + format_bytes(report.dense_bytes) +
                  "; " + format_count(report.changed_elements) + " of " +
                  format_count(report.elements) + " elements changed (" +
                  format_percent(report.changed_elements, report.elements) + ")");
  say_row(common, {"codec", "bytes", "bits/change", "of dense", "encode GB/s", "decode GB/s"});
  for (const CodecResult& result : report.results) {
    const bool any = report.changed_elements != 0;
    const double bits = 8 * ratio(result.section_bytes, report.changed_elements);
    say_row(common,
            {result.name, format_count(result.section_bytes), any ? format_fixed(bits, 3) : "-",
             format_fixed(ratio(result.section_bytes, report.dense_bytes), 5),
             format_fixed(speed(report, result.encode_seconds), 2),
             format_fixed(speed(report, result.decode_seconds), 2)});
  }
  say(common, "every result exact; dense bytes per second of one core, medians of " +
                  std::to_string(rounds) + (rounds == 1 ? " round" : " rounds"));
  for (const CodecResult& result : report.results) {
    if (find_codec(result.name) != nullptr || result.sections == 0) continue;
    std::string line = "effort " + result.name + " chose";
    const char* comma = " ";
    for (const auto& [name, sections] : result.sections_by_codec) {
      line += comma + name + " for " + format_count(sections);
      comma = ", ";
    }
    say(common, line + (result.sections == 1 ? " section" : " sections"));
  }
}

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Checkpoint>> from = open_checkpoint(arguments.from);
  if (!from) return std::move(from).error();
  Result<std::unique_ptr<Checkpoint>> to = open_checkpoint(arguments.to);
  if (!to) return std::move(to).error();
  CompareCodecsOptions options = arguments.options;
  std::unique_ptr<Checkpoint> earlier;
  if (!arguments.earlier.empty()) {
    Result<std::unique_ptr<Checkpoint>> opened = open_checkpoint(arguments.earlier);
    if (!opened) return std::move(opened).error();
    earlier = *std::move(opened);
    options.earlier = earlier.get();
  }
  Result<CodecComparison> report = [&] {
    ProgressBar bar(common, "bench");
    options.progress = bar.callback();
    return compare_codecs(**from, **to, options);
  }();
  if (!report)
    return std::move(report).error().in("'" + arguments.from + "' and '" + arguments.to + "'");
  for (const std::string& name : report->left_out)
    note(common, "left out " + name + ": not the same in name, dtype and shape on both sides");
  for (const CodecResult& result : report->results) {
    if (result.refused_tensors == 0) continue;
    note(common, result.name + " does not code the words of " +
                     format_count(result.refused_tensors) +
                     " tensors; its row has them as effort default codes them");
  }
  say_table(common, *report, options.rounds);
  Json results = Json::array();
  for (const CodecResult& result : report->results) results.push_back(to_json(*report, result));
  emit(common, {{"tensors", report->tensors},
                {"dense_bytes", report->dense_bytes},
                {"elements", report->elements},
                {"changed_elements", report->changed_elements},
                {"rounds", options.rounds},
                {"results", std::move(results)},
                {"left_out", report->left_out}});
  return {};
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, context, "bench", "Compare the codecs on two checkpoints: sizes and speeds",
               "siltstone bench run/step_0003 run/step_0004");
  auto arguments = std::make_shared<Arguments>();
  CompareCodecsOptions& options = arguments->options;
  verb->add_option("OLD", arguments->from, "A .safetensors file or a Hugging Face model folder")
      ->required();
  verb->add_option("NEW", arguments->to, "What came after it")->required();
  verb->add_option("--earlier", arguments->earlier,
                   "What came before OLD, for codec momentum; left out otherwise");
  verb->add_option("--codec", options.codecs,
                   "Only this codec or effort (see publish --effort); may be given again")
      ->allow_extra_args(false);
  verb->add_option("--rounds", options.rounds, "Times are medians of N rounds (default: 3)")
      ->check(CLI::Range(1, 1000));
  verb->add_option("--tensor", options.tensors, "Only tensors whose names match GLOB");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
