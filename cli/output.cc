#include "output.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "siltstone/store.h"

namespace siltstone::cli {
namespace {

using Clock = std::chrono::steady_clock;

bool colours() {
  const char* no_color = std::getenv("NO_COLOR");
  return (no_color == nullptr || *no_color == 0) && ::isatty(STDERR_FILENO) == 1;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name,
                   const std::string& description, const std::string& example) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->add_flag("--json", context.common.json, "Print one JSON document on stdout");
  verb->add_flag("-q,--quiet", context.common.quiet, "No remarks, no progress");
  verb->footer("Example:\n  " + example);
  return verb;
}

void add_work_options(CLI::App* verb, Context& context) {
  verb->add_option("--threads", context.common.threads, "Threads (default: every CPU)")
      ->check(CLI::Range(0, 4096));
  verb->add_option("--memory", context.common.memory_bytes,
                   "Bound of buffers, such as 512MB or 2GB (default: 1GB)")
      ->transform(CLI::AsSizeValue(false));
}

void add_bucket_options(CLI::App* verb, Context& context, std::string* bucket) {
  verb->add_option("BUCKET", *bucket,
                   "Directory, s3://BUCKET/PREFIX, hf://buckets/NAMESPACE/NAME\n"
                   "or http://HOST/PATH (read only)")
      ->required();
  add_store_options(verb, context);
}

void add_store_options(CLI::App* verb, Context& context, bool through_relay) {
  StoreOptions& store = context.common.store;
  verb->add_option("--transfers", store.transfers,
                   "Requests at once to a remote BUCKET (default: 16)")
      ->check(CLI::Range(1, 256));
  verb->add_option("--limit-rate", store.bytes_per_second,
                   "Bytes per second of all transfers together, such as 20MB (default: no limit)")
      ->transform(CLI::AsSizeValue(false));
  verb->add_option("--timeout", store.total_seconds,
                   "Seconds for which a request that fails is made again (default: 300)")
      ->check(CLI::Range(0.0, 86400.0));
  verb->add_option("--stall-timeout", store.stall_seconds,
                   "Seconds without a byte after which a request is made again (default: 30)")
      ->check(CLI::Range(1.0, 3600.0));
  if (!through_relay) return;
  verb->add_option("--relay", store.relay,
                   "Read through this relay (http://host:port), and directly "
                   "where\nit does not help")
      ->envname("SILTSTONE_RELAY");
}

int exit_status(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 2;
    case Code::kNotFound:
      return 3;
    case Code::kCorrupt:
    case Code::kMismatch:
      return 4;
    case Code::kConflict:
      return 5;
    case Code::kPermission:
      return 6;
    case Code::kUnavailable:
      return 7;
    default:
      return 1;
  }
}

void say(const Common& common, const std::string& line) {
  if (!common.json) std::printf("%s\n", line.c_str());
}

void emit(const Common& common, const Json& document) {
  if (!common.json) return;
  std::printf("%s\n", document.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  std::fflush(stdout);
}

void note(const Common& common, const std::string& line) {
  if (!common.quiet) std::fprintf(stderr, "%s\n", line.c_str());
}

void print_error(const Common& common, const Error& error) {
  const bool colour = colours();
  std::fprintf(stderr, "%ssiltstone:%s %s\n", colour ? "\033[1;31m" : "", colour ? "\033[0m" : "",
               error.message.c_str());
  emit(common, {{"error",
                 {{"code", code_name(error.code)},
                  {"exit", exit_status(error.code)},
                  {"message", error.message}}}});
}

Result<std::unique_ptr<Repository>> open_repository(const Common& common, const std::string& url) {
  Result<std::shared_ptr<Store>> store = open_store(url, common.store);
  if (!store) return std::move(store).error();
  return Repository::open(*std::move(store));
}

Json describe(const Version& version) {
  Json json = {{"version", version.id.name()},
               {"branch", version.id.branch},
               {"seq", version.id.seq},
               {"hash", version.id.commit_hash},
               {"epoch", version.epoch},
               {"kind", version.fence ? "fence" : "publish"},
               {"root", version.root},
               {"parent", version.parent ? Json(version.parent->name()) : Json(nullptr)},
               {"step", version.step ? Json(*version.step) : Json(nullptr)},
               {"message", version.message},
               {"time", version.time},
               {"artifacts", Json::array()}};
  for (const ArtifactInfo& artifact : version.artifacts) {
    const bool anchor = artifact.kind == ArtifactKind::kAnchor;
    Json item = {{"kind", anchor ? "anchor" : "delta"},
                 {"bytes", artifact.bytes},
                 {"objects", artifact.objects}};
    if (anchor) item["packed"] = artifact.packed;
    if (!anchor) item["changed_elements"] = artifact.changed_elements;
    json["artifacts"].push_back(std::move(item));
  }
  return json;
}

std::string format_fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string format_percent(uint64_t part, uint64_t whole) {
  return format_fixed(100 * ratio(part, whole), 3) + " %";
}

double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string format_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return format_fixed(value, unit == 0 ? 0 : 2) + " " + kUnits[unit];
}

std::string format_count(uint64_t count) {
  std::string text = std::to_string(count);
  for (size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

struct ProgressBar::State {
  std::mutex mutex;
  std::string label;
  Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  bool shown = false;
  bool enabled = false;

  void draw(uint64_t done, uint64_t total) {
    constexpr double kDelay = 1.0;
    constexpr double kBetween = 0.1;
    const std::lock_guard lock(mutex);
    const double elapsed = seconds_since(start);
    if (elapsed < kDelay || seconds_since(last) < kBetween || total == 0) return;
    last = Clock::now();
    shown = true;
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const double rate = static_cast<double>(done) / elapsed;
    const double left = rate > 0 ? static_cast<double>(total - std::min(done, total)) / rate : 0;
    constexpr int kWidth = 24;
    const int filled = static_cast<int>(share * kWidth);
    const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
    std::fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %s of %s  %s/s  %.0f s left", label.c_str(),
                 bar.c_str(), share * 100, format_bytes(done).c_str(), format_bytes(total).c_str(),
                 format_bytes(static_cast<uint64_t>(rate)).c_str(), left);
    std::fflush(stderr);
  }
};

ProgressBar::ProgressBar(const Common& common, std::string label)
    : state_(std::make_shared<State>()) {
  state_->label = std::move(label);
  state_->enabled = !common.quiet && ::isatty(STDERR_FILENO) == 1;
}

ProgressBar::~ProgressBar() {
  const std::lock_guard lock(state_->mutex);
  if (state_->shown) std::fprintf(stderr, "\r\033[K");
}

Progress ProgressBar::callback() {
  if (!state_->enabled) return {};
  return [state = state_](uint64_t done, uint64_t total) {
    state->draw(done, total);
    return true;
  };
}

}  // namespace siltstone::cli
