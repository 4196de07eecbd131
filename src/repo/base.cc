#include "repo/base.h"

#include "base/try.h"
#include "repo/plan.h"

namespace siltstone {
namespace {

// The bytes that an anchor gives before its chain, which a packed one is part of.
Status open_anchor(Bucket& bucket, const Commit& anchor, std::span<const TensorInfo> tensors,
                   bool prove, const BaseOptions& options, Base* base) {
  if (anchor.find(ArtifactKind::kAnchor)->packed) {
    base->bytes = std::make_unique<ZeroBytes>();
    SILT_ASSIGN(base->sums, sum_all(tensors, *base->bytes, options.threads));
    return {};
  }
  const ProveOptions prove_options{options.threads, options.memory_bytes / 4};
  SILT_ASSIGN(std::unique_ptr<AnchorBytes> bytes,
              AnchorBytes::open(bucket.store(), anchor, tensors, prove_options));
  if (prove) SILT_TRY(bytes->prove(prove_options));
  base->anchor = bytes.get();
  base->sums = bytes->sums();
  base->fetched_bytes = bytes->size_bytes();
  base->bytes = std::move(bytes);
  return {};
}

const Commit* packed_anchor(const Path& path) {
  const bool packed = path.anchor && path.anchor->find(ArtifactKind::kAnchor)->packed;
  return packed ? &*path.anchor : nullptr;
}

// The chain, and where it is here the proof that the believed sums lead along it to the head's
// root.
Status attach_chain(Bucket& bucket, const Commit& head, std::span<const TensorInfo> tensors,
                    const Path& path, const BaseOptions& options, Base* base) {
  ChainOptions chain_options{options.threads, options.memory_bytes / 4, options.meter,
                             options.overlap ? bucket.tuning.overlap_bytes : UINT64_MAX};
  if (options.here != nullptr) chain_options.here = *options.here;
  SILT_ASSIGN(base->chain,
              Chain::load(bucket.store(), path.links, tensors, chain_options, packed_anchor(path)));
  if (!options.overlap) {
    std::vector<Sum128> after = base->sums;
    for (size_t t = 0; t < tensors.size(); ++t) after[t] += base->chain->change(t);
    if (state_root(state_rows(tensors, after)) != head.root) {
      return Error{Code::kCorrupt,
                   base->description + " does not lead to the root of " + head.id.name()};
    }
  }
  if (!path.links.empty()) {
    base->description += " and " + std::to_string(path.links.size()) + " deltas";
  }
  base->fetched_bytes += base->chain->size_bytes();
  return {};
}

}  // namespace

Result<std::optional<Base>> base_from_known(Bucket& bucket, const Commit& head,
                                            std::span<const TensorInfo> tensors, KnownState known,
                                            const BaseOptions& options) {
  if (known.sums.size() != tensors.size()) return std::optional<Base>();
  KnownRoots roots{known.root, {}};
  if (known.back) roots.earlier_root = known.back->artifact.to_root;
  SILT_ASSIGN(const Path path, plan_path(bucket.history(), head, roots));
  if (path.anchor) return std::optional<Base>();
  Base base;
  if (known.back && (options.earlier || !path.earlier_root().empty())) {
    Result<std::unique_ptr<const Chain>> back =
        Chain::load(*known.back, tensors, {options.threads, options.memory_bytes / 8});
    if (back) {
      base.back = *std::move(back);
      base.back_root = known.back->artifact.to_root;
    } else {
      known.back.reset();
      return base_from_known(bucket, head, tensors, std::move(known), options);
    }
  }
  base.kept = std::move(known.kept);
  base.bytes = std::move(known.bytes);
  if (base.back != nullptr)
    base.earlier = std::make_unique<const StateReader>(tensors, *base.bytes, base.back.get());
  base.sums = std::move(known.sums);
  base.description = std::move(known.description);
  SILT_TRY(attach_chain(bucket, head, tensors, path, options, &base));
  return std::optional<Base>(std::move(base));
}

Result<Base> base_from_bucket(Bucket& bucket, const Commit& head,
                              std::span<const TensorInfo> tensors, bool prove,
                              const BaseOptions& options) {
  SILT_ASSIGN(const Path path, plan_path(bucket.history(), head, std::nullopt));
  Base base;
  SILT_TRY(open_anchor(bucket, *path.anchor, tensors, prove, options, &base));
  base.description = "the bucket's anchor of " + path.anchor->id.name();
  SILT_TRY(attach_chain(bucket, head, tensors, path, options, &base));
  return base;
}

}  // namespace siltstone
