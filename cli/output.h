// What every verb shares: its common options, how it prints, how it fails.
//
// Results go to stdout (one JSON document with --json, one per line for streams), everything else
// to stderr.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "siltstone/repository.h"
#include "siltstone/result.h"
#include "siltstone/store.h"
#include "siltstone/version.h"

namespace siltstone::cli {

using Json = nlohmann::ordered_json;

struct Common {
  bool json = false;
  bool quiet = false;
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  StoreOptions store;
};

// What a verb's callback leaves behind: main() runs it and exits with its result.
struct Context {
  Common common;
  std::function<Status()> run;
};

// Adds a subcommand with --json, --quiet and an example under its help.
CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name,
                   const std::string& description, const std::string& example);
// --threads and --memory, for verbs that read weights.
void add_work_options(CLI::App* verb, Context& context);

// --transfers, --limit-rate and the time-outs, for verbs that open a bucket; --relay, for verbs
// that read one.
void add_store_options(CLI::App* verb, Context& context, bool through_relay = true);
// BUCKET and the options above.
void add_bucket_options(CLI::App* verb, Context& context, std::string* bucket);

int exit_status(Code code);

// What every summary says of a bucket of that kind.
inline constexpr const char* kSingleWriterRemark =
    "single-writer bucket: a second writer could overwrite this one's versions unnoticed";

// Prints a line for people (not with --json), or a JSON document (only with --json).
void say(const Common& common, const std::string& line);
void emit(const Common& common, const Json& document);
// A remark on stderr, silenced by --quiet.
void note(const Common& common, const std::string& line);
void print_error(const Common& common, const Error& error);

// Opens the store at `url` and the repository in it.
Result<std::unique_ptr<Repository>> open_repository(const Common& common, const std::string& url);

Json describe(const Version& version);
std::string format_bytes(uint64_t bytes);
std::string format_count(uint64_t count);  // 1,234,567
std::string format_fixed(double value, int decimals);
std::string format_percent(uint64_t part, uint64_t whole);  // 1.234 %
double ratio(uint64_t part, uint64_t whole);                // 0 if there is no whole

// A bar on stderr for work of over a second: bytes, rate, time left. Silent unless stderr is a
// terminal. Erases itself.
class ProgressBar {
 public:
  ProgressBar(const Common& common, std::string label);
  ~ProgressBar();
  Progress callback();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace siltstone::cli
