// fetch URL FROM TO prints the seconds that two things take: to fetch the objects of TO's delta and
// prove them by SHA-256, and to take a replica in memory from FROM to TO (fetch again, decode,
// prove, apply).
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "repo/bucket.h"
#include "repo/objects.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {
namespace {

template <class T>
T need(Result<T> result) {
  if (result) return *std::move(result);
  std::fprintf(stderr, "fetch: %s\n", result.error().message.c_str());
  std::exit(1);
}

double fetch_delta(Bucket& bucket, const Version& version) {
  const Commit commit = need(bucket.history().read(version.id));
  const std::vector<ObjectRef> objects =
      need(artifact_objects(*bucket.store(), *commit.find(ArtifactKind::kDelta)));
  std::vector<std::vector<std::byte>> contents(objects.size());
  std::vector<Promised> wanted;
  for (size_t i = 0; i < objects.size(); ++i) wanted.push_back({&objects[i], &contents[i]});
  const auto begin = std::chrono::steady_clock::now();
  const Status proven = prove_objects(*bucket.store(), wanted, {});
  if (!proven) need(Result<int>(proven.error()));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int run(const std::string& url, const std::string& from, const std::string& to) {
  const auto repository = need(Repository::open(need(open_store(url))));
  const Version held = need(repository->resolve(from));
  std::vector<std::vector<std::byte>> memory;
  std::vector<MutTensorView> views;
  for (const TensorInfo& info : need(repository->tensors(held))) {
    memory.emplace_back(info.size_bytes);
    views.push_back({info.name, info.dtype, info.shape, memory.back(), {}});
  }
  need(repository->load(held, views, {}));
  const auto replica = need(Replica::adopt(views, held));
  const Version wanted = need(repository->resolve(to));
  std::printf("%.4f ", fetch_delta(as_bucket(*repository), wanted));
  auto staged = need(replica->stage(*repository, wanted, {}));
  const double stage_seconds = staged->seconds();
  const CommitReport report = replica->commit(std::move(staged));
  if (!report.status) {
    std::fprintf(stderr, "fetch: %s\n", report.status.error().message.c_str());
    return 1;
  }
  std::printf("%.4f\n", stage_seconds + report.seconds);
  return 0;
}

}  // namespace
}  // namespace siltstone

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: fetch URL FROM TO\n");
    return 2;
  }
  return siltstone::run(argv[1], argv[2], argv[3]);
}
