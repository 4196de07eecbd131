#include "siltstone/replica.h"

#include "base/try.h"
#include "replica/files_replica.h"
#include "replica/memory_replica.h"

namespace siltstone {

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kUnchanged:
      return "UNCHANGED";
    case Outcome::kApplied:
      return "APPLIED";
    case Outcome::kPoisoned:
      return "POISONED";
  }
  return "unknown";
}

Result<std::unique_ptr<Replica>> Replica::open(const std::filesystem::path& folder,
                                               Repository& repository) {
  return FilesReplica::open(folder, as_bucket(repository));
}

Result<std::unique_ptr<Replica>> Replica::adopt(std::vector<MutTensorView> tensors,
                                                const Version& at) {
  return MemoryReplica::adopt(std::move(tensors), at);
}

Result<std::unique_ptr<Replica>> Replica::adopt(std::vector<TensorInfo> tensors,
                                                std::vector<Slot> slots, const Version& at) {
  return MemoryReplica::adopt(std::move(tensors), std::move(slots), at, nullptr);
}

Result<std::unique_ptr<Replica>> Replica::adopt_share(Repository& repository,
                                                      std::vector<Slot> slots, const Version& at) {
  SILT_ASSIGN(std::vector<TensorInfo> tensors, repository.tensors(at));
  SILT_ASSIGN(const std::vector<std::string> digests, repository.digests(at));
  std::vector<Sum128> sums(digests.size());
  for (size_t t = 0; t < digests.size(); ++t) {
    if (!sum_from_hex(digests[t], &sums[t]))
      return Error{Code::kCorrupt, "the digest of '" + tensors[t].name + "' is not hexadecimal"};
  }
  return MemoryReplica::adopt(std::move(tensors), std::move(slots), at, &sums);
}

Result<std::vector<std::byte>> Staged::changes() const {
  return Error{Code::kUnsupported,
               "only a replica in memory tells what a staged change overwrites"};
}

}  // namespace siltstone
