#include "siltstone/replica.h"

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
  return MemoryReplica::adopt(std::move(tensors), std::move(slots), at);
}

}  // namespace siltstone
