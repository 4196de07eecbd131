#include "relay/metrics.h"

#include <string_view>

namespace siltstone::relay {
namespace {

class Page {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = "siltstone_relay_" + std::string(name);
    text_ += "# HELP " + name_ + " " + std::string(help) + "\n";
    text_ += "# TYPE " + name_ + " " + std::string(type) + "\n";
  }
  // `labels` with their braces, or empty.
  void sample(std::string_view labels, uint64_t value) {
    text_ += name_ + std::string(labels) + " " + std::to_string(value) + "\n";
  }
  void single(std::string_view name, std::string_view type, std::string_view help, uint64_t value) {
    family(name, type, help);
    sample("", value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

constexpr std::string_view kCounter = "counter";
constexpr std::string_view kGauge = "gauge";

void add_replies(const Metrics& metrics, Page* page) {
  page->family("requests_total", kCounter, "Requests answered, by class of status.");
  for (size_t digit = 2; digit < metrics.replies.size(); ++digit) {
    page->sample("{class=\"" + std::to_string(digit) + "xx\"}", metrics.replies[digit]);
  }
  page->single("replies_cut_total", kCounter, "Replies that ended before their last byte.",
               metrics.replies_cut);
  page->single("served_bytes_total", kCounter, "Bytes of objects in replies.",
               metrics.served_bytes);
  page->family("waiting_requests", kGauge, "Requests held now, by what they wait for.");
  page->sample("{for=\"version\"}", metrics.waiting_for_version);
  page->sample("{for=\"bytes\"}", metrics.waiting_for_bytes);
  page->single("active_requests", kGauge, "Requests being answered now, those held among them.",
               metrics.active_requests);
}

void add_store(const Metrics& metrics, Page* page) {
  page->single("store_requests_total", kCounter, "Calls of the store.", metrics.store_requests);
  page->single("store_errors_total", kCounter,
               "Calls of the store that failed, absence not counted.", metrics.store_errors);
  page->single("fetched_bytes_total", kCounter, "Bytes read from the store.",
               metrics.fetched_bytes);
  page->single("fetched_objects_total", kCounter, "Objects fetched from the store and proven.",
               metrics.fetched_objects);
  page->family("integrity_failures_total", kCounter,
               "Objects that were not what was promised, by where they lay.");
  page->sample("{in=\"store\"}", metrics.damaged_in_store);
  page->sample("{in=\"cache\"}", metrics.damaged_in_cache);
}

}  // namespace

std::string format_metrics(const Metrics& metrics, const CacheUse& use) {
  Page page;
  add_replies(metrics, &page);
  add_store(metrics, &page);
  page.single("cache_bytes", kGauge, "Disk that the cache takes.", use.bytes);
  page.single("cache_limit_bytes", kGauge, "Disk that the cache may take.", use.limit_bytes);
  page.single("cache_objects", kGauge, "Objects in the cache.", use.objects);
  page.single("evictions_total", kCounter, "Objects removed to make room.", metrics.evictions);
  return page.take();
}

}  // namespace siltstone::relay
