// A replica in the caller's own memory, whose tensors lie whole or in slots.
//
// Staging computes, block by block, which words will be overwritten, where and by what; commit
// writes them.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "delta/digest.h"
#include "replica/placement.h"
#include "repo/state.h"
#include "repo/way_back.h"
#include "siltstone/replica.h"

namespace siltstone {

class MemoryReplica final : public Replica {
 public:
  static Result<std::unique_ptr<Replica>> adopt(std::vector<MutTensorView> tensors,
                                                const Version& at);
  // `elsewhere`: the sums of all tensors, where those without a slot are held elsewhere; or null.
  static Result<std::unique_ptr<Replica>> adopt(std::vector<TensorInfo> tensors,
                                                std::vector<Slot> slots, const Version& at,
                                                const std::vector<Sum128>* elsewhere);

  std::optional<Version> version() const override { return version_; }
  Result<std::unique_ptr<Staged>> stage(Repository& repository, const Version& target,
                                        const StageOptions& options) override;
  CommitReport commit(std::unique_ptr<Staged> staged) override;

 private:
  struct Change;
  MemoryReplica() = default;
  Status find_sums(const Version& at, const std::vector<Sum128>* elsewhere);
  bool is_here(size_t tensor) const { return std::ranges::binary_search(here_, tensor); }
  bool shares() const { return here_.size() < tensors_.size(); }
  Status check_ties(const std::vector<Sum128>& sums, const Version& target) const;

  std::vector<TensorInfo> tensors_;  // sorted by name
  std::vector<Placement> places_;    // theirs
  std::vector<size_t> here_;         // those that have a place
  std::vector<size_t> ties_;         // the first tensor on the same memory
  std::vector<Sum128> sums_;
  Version version_;
  std::optional<WayBack> back_;
};

}  // namespace siltstone
