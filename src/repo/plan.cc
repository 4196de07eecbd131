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

// The version before the start that the oldest link of a newest-first walk looks at.
const std::string& looked_at(const Path& walked) {
  static const std::string nothing;
  return walked.links.empty() ? nothing
                              : walked.links.back().find(ArtifactKind::kDelta)->earlier_root;
}

}  // namespace

const std::string& Path::earlier_root() const {
  static const std::string nothing;
  if (anchor || links.empty()) return nothing;
  return links.front().find(ArtifactKind::kDelta)->earlier_root;
}

Result<Path> plan_path(History& history, const Commit& target,
                       const std::optional<KnownRoots>& known) {
  std::optional<Path> best;
  Path walked;
  std::optional<Commit> commit = target;
  while (commit) {
    const std::string& earlier = looked_at(walked);
    if (known && commit->root == known->root &&
        (earlier.empty() || earlier == known->earlier_root)) {
      if (cheaper(walked, best)) best = finish(walked);
      break;
    }
    const Artifact* anchor = commit->find(ArtifactKind::kAnchor);
    if (anchor != nullptr && earlier.empty()) {
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
    if (best && !known) break;  // an older anchor only adds links
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
