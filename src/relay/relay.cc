#include "siltstone/relay.h"

#include <algorithm>
#include <chrono>

#include "base/parallel.h"
#include "base/try.h"
#include "relay/server.h"

namespace siltstone {
namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kMaxThreads = 8;
constexpr unsigned kMaxFetches = 4;
// Below this an ordinary anchor object would not fit.
constexpr uint64_t kMinCacheBytes = uint64_t{1} << 20;
constexpr std::chrono::seconds kLastCall{1};  // for a call of the store that runs
constexpr std::chrono::hours kForever{24};

Clock::duration seconds(double value) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(value));
}

Status check(const RelayOptions& options) {
  const auto refuse = [](const char* why) { return Error{Code::kInvalidArgument, why}; };
  if (options.cache.empty()) return refuse("a relay needs a folder for its cache");
  if (options.cache_bytes < kMinCacheBytes) return refuse("the cache must be at least 1 MiB");
  if (!(options.interval_seconds >= 0.01 && options.interval_seconds <= 3600)) {
    return refuse("the interval is between 0.01 and 3600 seconds");
  }
  if (options.connections == 0) return refuse("a relay needs at least one connection");
  return {};
}

// The store's transfers are shared by a few objects at once, several pieces of each.
relay::ObjectsOptions objects_options(const RelayOptions& options, const StoreTraits& traits) {
  relay::ObjectsOptions out;
  out.life = seconds(options.interval_seconds);
  out.fetches = std::clamp(traits.transfers, 2U, kMaxFetches);
  out.ahead.requests = std::max(traits.transfers / out.fetches, 1U);
  return out;
}

class RunningRelay final : public Relay {
 public:
  RunningRelay(std::shared_ptr<Store> store, std::unique_ptr<relay::Cache> cache,
               std::unique_ptr<relay::Metrics> metrics, const RelayOptions& options)
      : metrics_(std::move(metrics)),
        store_(std::move(store), *metrics_),
        cache_(std::move(cache)),
        objects_(store_, *cache_, *metrics_, objects_options(options, store_.traits())),
        watcher_(seconds(options.interval_seconds), objects_.lookups(),
                 [this](const std::string& branch, uint64_t seq) {
                   return objects_.look(relay::commit_name(branch, seq));
                 }) {}

  ~RunningRelay() override {
    stop(0);
    objects_.stop(Clock::now() + kForever);
  }

  Status serve(const RelayOptions& options) {
    const Result<bool> there = objects_.look(relay::repo_name());
    if (there && !*there) {
      return Error{Code::kNotFound, "'" + store_.url() + "' holds no repository"};
    }
    // Whatever is wrong else may pass, and health tells it; damage does not.
    if (!there && there.error().code == Code::kCorrupt) return there.error();
    SILT_ASSIGN(relay::Listener listener, relay::Listener::open(options.address, options.port));
    const unsigned threads =
        options.threads != 0 ? options.threads : std::min(available_threads(), kMaxThreads);
    SILT_ASSIGN(server_, relay::Server::start({store_, *cache_, objects_, watcher_, *metrics_},
                                              std::move(listener),
                                              {threads, options.connections, options.on_access}));
    return {};
  }

  std::string url() const override { return server_->listener().url(); }

  bool stop(double grace_seconds) override {
    if (server_) server_->stop(Clock::now() + seconds(grace_seconds));
    watcher_.stop();
    const bool ended = objects_.stop(Clock::now() + kLastCall);
    cache_->clear_arriving();
    return ended;
  }

 private:
  // In the order in which they need each other.
  std::unique_ptr<relay::Metrics> metrics_;
  relay::Upstream store_;
  std::unique_ptr<relay::Cache> cache_;
  relay::Objects objects_;
  relay::Watcher watcher_;
  std::unique_ptr<relay::Server> server_;
};

}  // namespace

Result<std::unique_ptr<Relay>> Relay::start(std::shared_ptr<Store> store,
                                            const RelayOptions& options) {
  SILT_TRY(check(options));
  auto metrics = std::make_unique<relay::Metrics>();
  SILT_ASSIGN(std::unique_ptr<relay::Cache> cache,
              relay::Cache::open(options.cache, options.cache_bytes, *metrics));
  auto relay = std::make_unique<RunningRelay>(std::move(store), std::move(cache),
                                              std::move(metrics), options);
  SILT_TRY(relay->serve(options));
  return std::unique_ptr<Relay>(std::move(relay));
}

}  // namespace siltstone
