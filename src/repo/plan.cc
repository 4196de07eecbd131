#include "repo/plan.h"

#include <algorithm>

#include "base/try.h"

namespace siltstone {
namespace {

bool cheaper(const Path& x, const std::optional<Path>& y) {
  return !y || x.bytes < y->bytes || (x.bytes == y->bytes && x.objects < y->objects);
}

// Oldest first, from the newest-first walk.
Path finish(Path walked) {
  std::reverse(walked.links.begin(), walked.links.end());
  return walked;
}

}  // namespace

Result<Path> plan_path(History& history, const Commit& target,
                       const std::optional<std::string>& known_root) {
  std::optional<Path> best;
  Path walked;
  std::optional<Commit> commit = target;
  while (commit) {
    if (known_root && commit->root == *known_root) {
      if (cheaper(walked, best)) best = finish(walked);
      break;
    }
    if (const Artifact* anchor = commit->find(ArtifactKind::kAnchor)) {
      Path candidate = walked;
      candidate.anchor = *commit;
      candidate.bytes += anchor->bytes;
      candidate.objects += anchor->objects.size() + anchor->lists.size();
      if (cheaper(candidate, best)) best = finish(std::move(candidate));
    }
    if (!commit->fence) {
      const Artifact* delta = commit->find(ArtifactKind::kDelta);
      if (delta == nullptr) break;
      walked.bytes += delta->bytes;
      walked.objects += delta->objects.size() + delta->lists.size();
      walked.links.push_back(*commit);
    }
    if (best && walked.bytes > best->bytes) break;
    if (best && !known_root) break;  // an older anchor only adds links
    Result<std::optional<Commit>> parent = history.parent(*commit);
    if (!parent && best) break;  // an older way that is damaged does not spoil a good one
    if (!parent) return std::move(parent).error();
    commit = *std::move(parent);
  }
  if (best) return *std::move(best);
  return Error{Code::kCorrupt, "no anchor was found from which " + target.id.name() +
                                   " could be rebuilt: the bucket has lost objects"};
}

}  // namespace siltstone
