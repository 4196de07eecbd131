#include <malloc.h>
#include <sys/resource.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "siltstone/relay.h"
#include "siltstone/store.h"
#include "verbs.h"

namespace siltstone::cli {
namespace {

constexpr double kGraceSeconds = 2;

struct Arguments {
  std::string store;
  std::string listen = "127.0.0.1:7483";
  bool log_replies = false;
  RelayOptions relay;
};

// "127.0.0.1:80" or "[::1]:80"
Status parse_listen(const std::string& text, RelayOptions* options) {
  const Error refusal{Code::kInvalidArgument, "--listen '" + text +
                                                  "': expected ADDRESS:PORT, such as "
                                                  "127.0.0.1:7483 or [::1]:7483"};
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return refusal;
  std::string address = text.substr(0, colon);
  const bool bracketed = address.front() == '[' && address.back() == ']';
  if (bracketed) address = address.substr(1, address.size() - 2);
  if (!bracketed && address.find(':') != std::string::npos) return refusal;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, options->port);
  if (error != std::errc() || stop != end) return refusal;
  options->address = std::move(address);
  return {};
}

// Each connection may hold a socket and a file.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// glibc gives threads heaps of their own; the blocks that replies are sent from would leave holes
// in all of them.
void share_few_heaps() {
#ifdef M_ARENA_MAX
  ::mallopt(M_ARENA_MAX, 2);
#endif
}

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

void log_reply(const RelayAccess& reply) {
  std::fprintf(stderr, "%s %s %s %u %llu %s%.6f\n", reply.client.c_str(), reply.method.c_str(),
               reply.path.c_str(), reply.status, static_cast<unsigned long long>(reply.bytes),
               reply.whole ? "" : "cut ", reply.seconds);
}

Status run(const Common& common, Arguments& arguments) {
  Status parsed = parse_listen(arguments.listen, &arguments.relay);
  if (!parsed) return parsed;
  raise_descriptor_limit();
  share_few_heaps();
  Result<std::shared_ptr<Store>> store = open_store(arguments.store, common.store);
  if (!store) return std::move(store).error();
  if (arguments.log_replies) arguments.relay.on_access = log_reply;
  arguments.relay.threads = common.threads;
  // Before any thread: they inherit the mask, and the signals stay for sigwait.
  const sigset_t signals = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Result<std::unique_ptr<Relay>> relay = Relay::start(*std::move(store), arguments.relay);
  if (!relay) return std::move(relay).error();
  say(common, "relaying " + arguments.store + " at " + (*relay)->url());
  std::fflush(stdout);
  emit(common, {{"url", (*relay)->url()},
                {"store", arguments.store},
                {"cache", arguments.relay.cache.string()},
                {"cache_bytes", arguments.relay.cache_bytes}});
  int signal = 0;
  ::sigwait(&signals, &signal);
  note(common, "relay: stopping");
  if ((*relay)->stop(kGraceSeconds)) return {};
  // A call of the store hangs; it holds nothing that outlives the process.
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace

void add_relay(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, context, "relay",
      "Serve a bucket to a site: each object is fetched once, however many replicas ask.\n"
      "Whoever reaches the address can read the whole bucket: it has no users and no encryption",
      "siltstone relay /data/bucket --listen 10.0.0.5:7483 --cache /var/cache/siltstone-relay");
  auto arguments = std::make_shared<Arguments>();
  RelayOptions& relay = arguments->relay;
  verb->add_option("STORE", arguments->store, "Bucket: directory or URL")->required();
  add_store_options(verb, context, /*through_relay=*/false);
  verb->add_option("--listen", arguments->listen,
                   "ADDRESS:PORT, numeric; port 0 takes a free one (default: 127.0.0.1:7483,\n"
                   "which only this machine reaches)");
  verb->add_option("--cache", relay.cache, "Folder for what was fetched; this relay's own")
      ->required();
  verb->add_option("--cache-size", relay.cache_bytes,
                   "Bound of that folder, such as 500MB or 2TB (default: 50GB)")
      ->transform(CLI::AsSizeValue(true));
  verb->add_option("--interval", relay.interval_seconds,
                   "Seconds between looks for a branch's next version (default: 1)")
      ->check(CLI::Range(0.01, 3600.0));
  verb->add_option("--connections", relay.connections, "Connections at once (default: 1024)")
      ->check(CLI::Range(1, 100000));
  verb->add_option("--threads", context.common.threads,
                   "That serve (default: every CPU, at most 8; one per 120 connections at least)")
      ->check(CLI::Range(0, 64));
  verb->add_flag("--verbose", arguments->log_replies, "A line on stderr for each reply");
  verb->callback([&context, arguments] {
    context.run = [&context, arguments] { return run(context.common, *arguments); };
  });
}

}  // namespace siltstone::cli
