// A replica in the caller's own memory.
//
// Staging computes, block by block, which words will be overwritten and by what; commit writes
// them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "delta/digest.h"
#include "repo/state.h"
#include "repo/way_back.h"
#include "siltstone/replica.h"

namespace siltstone {

class MemoryReplica final : public Replica {
 public:
  static Result<std::unique_ptr<Replica>> adopt(std::vector<MutTensorView> tensors,
                                                const Version& at);

  std::optional<Version> version() const override { return version_; }
  Result<std::unique_ptr<Staged>> stage(Repository& repository, const Version& target,
                                        const StageOptions& options) override;
  CommitReport commit(std::unique_ptr<Staged> staged) override;

 private:
  struct Change;
  MemoryReplica() = default;

  std::vector<MutTensorView> views_;  // sorted by name
  std::vector<TensorInfo> tensors_;
  std::vector<Sum128> sums_;
  Version version_;
  std::optional<WayBack> back_;
};

}  // namespace siltstone
