// Many replicas of one site at once: replicas URL COUNT. Each has a connection of its own and
// fetches and proves every object of the newest version; prints the MB/s of all together.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "repo/bucket.h"
#include "repo/objects.h"
#include "siltstone/store.h"

namespace siltstone {
namespace {

// Bytes that one replica fetched.
Result<uint64_t> fetch_all(Bucket& bucket) {
  const Result<Version> head = bucket.head("main");
  if (!head) return head.error();
  const Result<Commit> commit = bucket.history().read(head->id);
  if (!commit) return commit.error();
  uint64_t bytes = 0;
  for (const Artifact& artifact : commit->artifacts) {
    const Result<std::vector<ObjectRef>> objects = artifact_objects(*bucket.store(), artifact);
    if (!objects) return objects.error();
    for (const ObjectRef& object : *objects) {
      const Status proven = prove_object(*bucket.store(), object, nullptr);
      if (!proven) return proven.error();
      bytes += object.length_bytes;
    }
  }
  return bytes;
}

int run(const std::string& url, int count) {
  std::latch line(count + 1);
  std::atomic<uint64_t> bytes{0};
  std::atomic<int> failed{0};
  std::vector<std::jthread> replicas;
  for (int i = 0; i < count; ++i) {
    replicas.emplace_back([&] {
      StoreOptions one;
      one.transfers = 1;
      Result<std::unique_ptr<Repository>> repository = Repository::open(*open_store(url, one));
      line.arrive_and_wait();
      const Result<uint64_t> got =
          repository ? fetch_all(as_bucket(**repository)) : Result<uint64_t>(repository.error());
      if (got) bytes += *got;
      if (!got && failed++ == 0)
        std::fprintf(stderr, "replicas: %s\n", got.error().message.c_str());
    });
  }
  line.arrive_and_wait();
  const auto begin = std::chrono::steady_clock::now();
  replicas.clear();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%.1f\n", static_cast<double>(bytes) / seconds / 1e6);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace siltstone

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: replicas URL COUNT\n");
    return 2;
  }
  return siltstone::run(argv[1], std::atoi(argv[2]));
}
