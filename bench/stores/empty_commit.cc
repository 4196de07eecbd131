// What a commit costs in which nothing changed, beside one conditional PUT of as many bytes to the
// same store: empty_commit URL [ROUNDS]. Both through one process, one connection each, taking
// turns; prints medians and the median ratio of pairs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "need.h"
#include "siltstone/checkpoint.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"
#include "store/sources.h"

namespace siltstone {
namespace {

using bench::need;

// What stands in the bucket for one commit without artifacts to speak of.
constexpr size_t kCommitBytes = 900;

template <class Work>
double milliseconds(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

int run(const std::string& url, int rounds) {
  const auto store = need(open_store(url));
  const auto repository = need(Repository::init(need(open_store(url))));
  std::vector<uint16_t> words(1 << 20, 0x3c00);
  const auto checkpoint = need(view_memory({{.name = "w",
                                             .dtype = DType::kBF16,
                                             .shape = {1 << 20},
                                             .bytes = std::as_bytes(std::span(words)),
                                             .device = {}}}));
  RetainedBase retained;
  PublishOptions options;
  options.retained = &retained;
  need(repository->publish(*checkpoint, options));
  std::vector<double> puts;
  std::vector<double> commits;
  std::vector<double> ratios;
  const std::string body(kCommitBytes, 'x');
  for (int round = 0; round < rounds; ++round) {
    const auto put = [&] { need(store->create(unique_name("put/"), SpanSource(body))); };
    const auto commit = [&] { need(repository->publish(*checkpoint, options)); };
    double put_ms = 0;
    if (round % 2 == 0) put_ms = milliseconds(put);
    const double commit_ms = milliseconds(commit);
    if (round % 2 == 1) put_ms = milliseconds(put);
    puts.push_back(put_ms);
    commits.push_back(commit_ms);
    ratios.push_back(commit_ms / put_ms);
  }
  std::printf(
      "conditional PUT of %zu bytes: %.2f ms; empty commit: %.2f ms; median ratio %.2f (%d)\n",
      kCommitBytes, median(puts), median(commits), median(ratios), rounds);
  return 0;
}

}  // namespace
}  // namespace siltstone

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: empty_commit URL [ROUNDS]\n");
    return 2;
  }
  return siltstone::run(argv[1], argc > 2 ? std::atoi(argv[2]) : 101);
}
