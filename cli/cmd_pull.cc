#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <sys/wait.h>

#include "siltstone/replica.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

std::atomic<bool> stop_requested{false};

// The first signal ends the loop after the current step, the second ends the process.
void request_stop(int signal) {
  stop_requested = true;
  std::signal(signal, SIG_DFL);
}

struct Arguments {
  std::string bucket;
  std::string folder;
  std::string branch = "main";
  std::string to;
  bool follow = false;
  bool repair = false;
  double interval_seconds = 1.0;
  std::optional<uint64_t> until;
  std::string on_update;
};

// Runs the user's command after each version. A record of the last version it ran for makes up for
// a process that was killed between the commit and the command.
class UpdateCommand {
 public:
  UpdateCommand(const Arguments& arguments)
      : arguments_(arguments),
        record_(std::filesystem::path(arguments.folder) / ".siltstone" / "updated") {}

  Status run(const Version& version) const {
    if (arguments_.on_update.empty()) return {};
    ::setenv("SILTSTONE_VERSION", version.id.name().c_str(), 1);
    ::setenv("SILTSTONE_ROOT", version.root.c_str(), 1);
    ::setenv("SILTSTONE_DIR", std::filesystem::absolute(arguments_.folder).c_str(), 1);
    ::setenv("SILTSTONE_STEP", version.step ? std::to_string(*version.step).c_str() : "", 1);
    std::fflush(stdout);
    const int status = std::system(arguments_.on_update.c_str());
    if (status == 0) {
      std::ofstream(record_) << version.id.commit_hash << "\n";
      return {};
    }
    const std::string how = WIFEXITED(status)
                                ? "ended with status " + std::to_string(WEXITSTATUS(status))
                                : "was ended by signal " + std::to_string(WTERMSIG(status));
    return Error{Code::kIo, "the command of --on-update " + how + " for " + version.id.name() +
                                "; the folder holds that version"};
  }

  // For the version that the folder holds already, unless the command has run for it.
  Status catch_up(const Version& version) const {
    if (arguments_.on_update.empty()) return {};
    std::string hash;
    std::ifstream(record_) >> hash;
    return hash == version.id.commit_hash ? Status() : run(version);
  }

 private:
  const Arguments& arguments_;
  std::filesystem::path record_;
};

void report(const Common& common, const FollowStep& step) {
  const Version& version = step.commit.version;
  const std::string from = step.from ? step.from->name() : "nothing";
  say(common, from + " -> " + version.id.name() + "  fetched " + format_bytes(step.bytes_fetched) +
                  ", staged in " + format_fixed(step.stage_seconds, 3) + " s, committed in " +
                  format_fixed(step.commit.seconds, 3) + " s");
  std::fflush(stdout);
  emit(common, {{"from", step.from ? Json(step.from->name()) : Json(nullptr)},
                {"to", version.id.name()},
                {"step", version.step ? Json(*version.step) : Json(nullptr)},
                {"bytes_fetched", step.bytes_fetched},
                {"stage_seconds", step.stage_seconds},
                {"commit_seconds", step.commit.seconds},
                {"root", version.root}});
}

Status pull_once(const Common& common, Replica& replica, Repository& repository,
                 const Version& target, const StageOptions& options, const UpdateCommand& update) {
  FollowStep step;
  const std::optional<Version> held = replica.version();
  if (held) step.from = held->id;
  if (held && held->id == target.id && !options.repair) {
    step.commit.version = target;
    if (!common.json) say(common, "already at " + target.id.name());
    if (common.json) report(common, step);
    return update.catch_up(target);
  }
  Result<std::unique_ptr<Staged>> staged = replica.stage(repository, target, options);
  if (!staged) return std::move(staged).error();
  step.bytes_fetched = (*staged)->bytes_fetched();
  step.stage_seconds = (*staged)->seconds();
  step.commit = replica.commit(*std::move(staged));
  if (!step.commit.status) return step.commit.status;
  report(common, step);
  return update.run(target);
}

Status run(const Common& common, const Arguments& arguments) {
  Result<std::unique_ptr<Repository>> repository = open_repository(common, arguments.bucket);
  if (!repository) return std::move(repository).error();
  // Before anything is created: a version that does not exist must leave no folder behind.
  std::optional<Version> target;
  if (!arguments.follow) {
    Result<Version> found =
        (*repository)->resolve(arguments.to.empty() ? arguments.branch : arguments.to);
    if (!found) return std::move(found).error();
    target = *std::move(found);
  }
  Result<std::unique_ptr<Replica>> replica = Replica::open(arguments.folder, **repository);
  if (!replica) return std::move(replica).error();
  const std::optional<Version> held = (*replica)->version();
  if (target && arguments.to.empty() && held && held->id.branch == target->id.branch &&
      held->id.seq > target->id.seq) {
    return Error{Code::kCorrupt, "the head of '" + arguments.branch + "' is " + target->id.name() +
                                     ", older than " + held->id.name() +
                                     ", which the folder holds: the bucket has lost versions "
                                     "(--to takes an older one on purpose)"};
  }
  const UpdateCommand update(arguments);
  ProgressBar bar(common, "pull");
  StageOptions stage{arguments.repair, common.threads, common.memory_bytes, bar.callback()};
  if (target) return pull_once(common, **replica, **repository, *target, stage, update);

  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  if (held) {
    Status caught_up = update.catch_up(*held);
    if (!caught_up) return caught_up;
  }
  FollowOptions options;
  options.branch = arguments.branch;
  options.interval_seconds = arguments.interval_seconds;
  options.until_seq = arguments.until;
  options.stage = stage;
  options.stop = &stop_requested;
  return follow(**replica, **repository, options, [&](const FollowStep& step) {
    report(common, step);
    return update.run(step.commit.version);
  });
}

}  // namespace

void add_pull(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, context, "pull", "Move a folder to a version in place, or follow a branch",
      "siltstone pull /data/bucket replica --follow --on-update 'echo $SILTSTONE_VERSION'");
  add_work_options(verb, context);
  auto arguments = std::make_shared<Arguments>();
  add_bucket_options(verb, context, &arguments->bucket);
  verb->add_option("DIR", arguments->folder, "The replica's folder; made if absent")->required();
  auto* branch = verb->add_option("-b,--branch", arguments->branch, "Branch (default: main)");
  auto* to = verb->add_option("--to", arguments->to, "This version instead of the branch's head")
                 ->excludes(branch);
  auto* follow = verb->add_flag("-f,--follow", arguments->follow,
                                "Keep pulling new versions; one JSON line each with --json")
                     ->excludes(to);
  verb->add_option("--interval", arguments->interval_seconds,
                   "Seconds between polls, drawn anew from half to one and a half of it")
      ->check(CLI::Range(0.001, 86400.0));
  verb->add_option("--until", arguments->until, "End when the folder holds this sequence number")
      ->needs(follow);
  verb->add_option("--on-update", arguments->on_update,
                   "Shell command after each version, with SILTSTONE_VERSION, SILTSTONE_ROOT,\n"
                   "SILTSTONE_STEP and SILTSTONE_DIR in its environment");
  verb->add_flag("--repair", arguments->repair,
                 "Rebuild the folder from the bucket whatever it holds");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
