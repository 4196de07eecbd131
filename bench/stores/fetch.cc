// fetch URL FROM TO [BYTES_PER_SECOND] prints the seconds that three things take: to fetch the
// objects of TO's delta and prove them by SHA-256; to take a replica in memory from FROM to TO
// (fetch again, decode, prove, apply); the same where decoding waits for all of the delta.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "need.h"
#include "repo/bucket.h"
#include "repo/objects.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {
namespace {

using bench::need;

double fetch_delta(Bucket& bucket, const Version& version) {
  const Commit commit = need(bucket.history().read(version.id));
  const std::vector<ObjectRef> objects =
      need(artifact_objects(*bucket.store(), *commit.find(ArtifactKind::kDelta)));
  std::vector<std::vector<std::byte>> contents(objects.size());
  std::vector<Promised> wanted;
  for (size_t i = 0; i < objects.size(); ++i) wanted.push_back({&objects[i], &contents[i]});
  const auto begin = std::chrono::steady_clock::now();
  const Status proven = prove_objects(*bucket.store(), wanted, {});
  need(proven);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double seconds_to_stage(Replica& replica, Repository& repository, const Version& target,
                        uint64_t overlap_bytes) {
  as_bucket(repository).tuning.overlap_bytes = overlap_bytes;
  return need(replica.stage(repository, target, {}))->seconds();
}

int run(const std::string& url, const std::string& from, const std::string& to,
        uint64_t bytes_per_second) {
  StoreOptions options;
  options.bytes_per_second = bytes_per_second;
  const auto repository = need(Repository::open(need(open_store(url, options))));
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
  const double fetch = fetch_delta(as_bucket(*repository), wanted);
  const uint64_t usual = Tuning().overlap_bytes;
  std::vector<double> overlapped;
  std::vector<double> waited;
  for (int i = 0; i < 4; ++i) {  // in an order that favours nobody: o w w o
    const bool overlaps = i == 0 || i == 3;
    (overlaps ? overlapped : waited)
        .push_back(seconds_to_stage(*replica, *repository, wanted, overlaps ? usual : UINT64_MAX));
  }
  const CommitReport report = replica->commit(need(replica->stage(*repository, wanted, {})));
  need(report.status);
  std::printf("%.4f %.4f %.4f\n", fetch, (overlapped[0] + overlapped[1]) / 2 + report.seconds,
              (waited[0] + waited[1]) / 2 + report.seconds);
  return 0;
}

}  // namespace
}  // namespace siltstone

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: fetch URL FROM TO [BYTES_PER_SECOND]\n");
    return 2;
  }
  return siltstone::run(argv[1], argv[2], argv[3],
                        argc == 5 ? std::strtoull(argv[4], nullptr, 10) : 0);
}
