#include "relay/absences.h"

namespace siltstone::relay {
namespace {

// Anybody may ask for any name: what is remembered of that is bounded, and may be forgotten.
constexpr size_t kMaxNames = 4096;

}  // namespace

void Absences::absent(const ObjectName& name, Clock::time_point at) {
  const std::lock_guard lock(mutex_);
  bound();
  names_[name.text] = at;
  if (name.kind != NameKind::kCommit) return;
  const auto found = branches_.find(name.branch);
  if (found == branches_.end() || name.seq <= *found->second.newest) return;
  Branch& branch = found->second;
  if (fresh(branch.looked) && branch.frontier > *branch.newest && branch.frontier < name.seq) {
    return;
  }
  branch.frontier = name.seq;
  branch.looked = at;
}

void Absences::present(const ObjectName& name) {
  const std::lock_guard lock(mutex_);
  bound();
  names_.erase(name.text);
  if (name.kind != NameKind::kCommit) return;
  Branch& branch = branches_[name.branch];
  if (!branch.newest || *branch.newest < name.seq) branch.newest = name.seq;
}

bool Absences::holds(const ObjectName& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = names_.find(name.text);
  if (found != names_.end() && fresh(found->second)) return true;
  if (name.kind != NameKind::kCommit) return false;
  const auto branch = branches_.find(name.branch);
  if (branch == branches_.end()) return false;
  const Branch& known = branch->second;
  return known.frontier > *known.newest && name.seq >= known.frontier && fresh(known.looked);
}

std::optional<uint64_t> Absences::newest(const std::string& branch) const {
  const std::lock_guard lock(mutex_);
  const auto found = branches_.find(branch);
  if (found == branches_.end()) return std::nullopt;
  return found->second.newest;
}

void Absences::bound() {
  if (branches_.size() >= kMaxNames) branches_.clear();
  if (names_.size() < kMaxNames) return;
  std::erase_if(names_, [this](const auto& name) { return !fresh(name.second); });
  if (names_.size() >= kMaxNames) names_.clear();
}

}  // namespace siltstone::relay
