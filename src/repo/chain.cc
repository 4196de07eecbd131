#include "repo/chain.h"

#include <algorithm>
#include <atomic>
#include <tuple>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/pack.h"
#include "repo/objects.h"
#include "repo/progress.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

// Of one chain: what a terabyte of weights has in 64 links, with room to spare.
constexpr uint64_t kMaxPieces = uint64_t{8} << 20;

Error corrupt(std::string message) {
  return {Code::kCorrupt, std::move(message)};
}

std::optional<size_t> find_tensor(std::span<const TensorInfo> tensors, const std::string& name) {
  const auto found =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorInfo& t, const std::string& n) { return t.name < n; });
  if (found == tensors.end() || found->name != name) return std::nullopt;
  return static_cast<size_t>(found - tensors.begin());
}

// Orders the sections by link and place; those of one link must not overlap, whatever packs they
// are in: an element would be changed twice.
Status check_pieces(const TensorInfo& info, std::vector<Chain::Piece>& pieces) {
  std::sort(pieces.begin(), pieces.end(), [](const Chain::Piece& x, const Chain::Piece& y) {
    const Tile& a = x.header.tile;
    const Tile& b = y.header.tile;
    return std::tie(x.link, a.row_begin, a.col_begin) < std::tie(y.link, b.row_begin, b.col_begin);
  });
  for (auto begin = pieces.begin(); begin != pieces.end();) {
    const auto end = std::find_if(begin, pieces.end(), [&begin](const Chain::Piece& piece) {
      return piece.link != begin->link;
    });
    std::vector<Tile> tiles;
    for (auto piece = begin; piece != end; ++piece) tiles.push_back(piece->header.tile);
    SILT_TRY(check_disjoint(std::move(tiles)).in("tensor '" + info.name + "'"));
    begin = end;
  }
  return {};
}

}  // namespace

// The links in order, which must start where the one before ends.
Result<std::vector<Chain::Link>> Chain::connect(const std::vector<Commit>& links,
                                                const Commit* anchor) {
  std::vector<Link> out;
  const std::string* root = nullptr;
  const std::string* earlier_root = nullptr;
  if (anchor != nullptr) {
    const Artifact* packed = anchor->find(ArtifactKind::kAnchor);
    if (packed == nullptr || !packed->packed)
      return Error{Code::kInternal, anchor->id.name() + " has no packed anchor"};
    out.push_back({packed, "anchor of " + anchor->id.name()});
    root = &anchor->root;
  }
  for (const Commit& link : links) {
    const Artifact* delta = link.find(ArtifactKind::kDelta);
    if (delta == nullptr) return corrupt(link.id.name() + " has no delta");
    if (root != nullptr && delta->from_root != *root) {
      return corrupt("delta of " + link.id.name() + " starts at root " + delta->from_root +
                     ", expected " + *root);
    }
    if (root != nullptr && !delta->earlier_root.empty() &&
        (earlier_root == nullptr || delta->earlier_root != *earlier_root)) {
      return corrupt("delta of " + link.id.name() + " looks back at root " + delta->earlier_root +
                     ", which the chain does not come from");
    }
    out.push_back({delta, "delta of " + link.id.name()});
    root = &link.root;
    earlier_root = &delta->from_root;
  }
  return out;
}

Result<Chain> Chain::load(std::shared_ptr<Store> store, const std::vector<Commit>& links,
                          std::span<const TensorInfo> tensors, const ChainOptions& options,
                          const Commit* anchor) {
  SILT_ASSIGN(std::vector<Link> connected, connect(links, anchor));
  Chain chain;
  chain.store_ = std::move(store);
  SILT_TRY(chain.load(std::move(connected), tensors, options));
  return chain;
}

Result<Chain> Chain::load(const WayBack& way, std::span<const TensorInfo> tensors,
                          const ChainOptions& options) {
  Chain chain;
  chain.store_ = way.store;
  SILT_TRY(chain.load({{&way.artifact, "the way back"}}, tensors, options));
  return chain;
}

Status Chain::load(std::vector<Link> links, std::span<const TensorInfo> tensors,
                   const ChainOptions& options) {
  pieces_.resize(tensors.size());
  link_count_ = links.size();
  SILT_TRY(list_packs(&links));
  SILT_TRY(fetch(links, options));
  for (size_t i = 0; i < links.size(); ++i) SILT_TRY(index(i, links[i], tensors).in(links[i].name));
  for (size_t t = 0; t < tensors.size(); ++t) SILT_TRY(check_pieces(tensors[t], pieces_[t]));
  return {};
}

Status Chain::list_packs(std::vector<Link>* links) {
  std::vector<std::vector<ObjectRef>> objects(links->size());
  SILT_TRY(
      parallel_for(links->size(), store_->traits().transfers, [&](uint64_t i, unsigned) -> Status {
        const Link& link = (*links)[i];
        Result<std::vector<ObjectRef>> found = artifact_objects(*store_, *link.artifact);
        if (!found) return std::move(found).error().in(link.name);
        objects[i] = *std::move(found);
        return {};
      }));
  for (size_t i = 0; i < links->size(); ++i) {
    (*links)[i].first_pack = packs_.size();
    for (ObjectRef& object : objects[i]) packs_.push_back({std::move(object), {}, {}});
    (*links)[i].end_pack = packs_.size();
  }
  return {};
}

Status Chain::fetch(const std::vector<Link>& links, const ChainOptions& options) {
  const uint64_t head_bytes = options.memory_bytes / 4 / std::max<size_t>(1, packs_.size());
  std::vector<Promised> wanted;
  for (const Link& link : links) {
    for (size_t i = link.first_pack; i < link.end_pack; ++i) {
      Pack& pack = packs_[i];
      if (!checked_add(bytes_fetched_, pack.object.length_bytes, &bytes_fetched_))
        return corrupt("the packs together are larger than any store");
      const bool keep = bytes_fetched_ <= options.memory_bytes;
      wanted.push_back({&pack.object, keep ? &pack.bytes : nullptr, link.name});
      if (keep) continue;
      pack.heads = PackHeads(pack.object, head_bytes);
      wanted.back().pass = [&pack](ByteSpan piece) { pack.heads.take(piece); };
    }
  }
  std::atomic<uint64_t> done{0};
  ProveOptions prove;
  prove.threads = options.threads;
  prove.memory_bytes = options.memory_bytes / 2;
  prove.arrived = [&](uint64_t bytes) {
    const uint64_t now = done += bytes;
    return tell(options.progress, now, bytes_fetched_ + options.later_bytes);
  };
  return prove_objects(*store_, wanted, prove);
}

Status Chain::index(size_t number, const Link& link, std::span<const TensorInfo> tensors) {
  const Artifact& artifact = *link.artifact;
  const bool looks_back = !artifact.earlier_root.empty();
  for (size_t pack = link.first_pack; pack < link.end_pack; ++pack) {
    SILT_TRY(index_pack(number, pack, looks_back, tensors));
    packs_[pack].heads = {};
  }
  uint64_t changed = 0;
  for (const auto& pieces : pieces_) {
    for (const Piece& piece : pieces) changed += piece.link == number ? piece.header.changed : 0;
  }
  if (changed != artifact.changed_elements) {
    return corrupt("its sections change " + std::to_string(changed) +
                   " elements, the commit says " + std::to_string(artifact.changed_elements));
  }
  return {};
}

Status Chain::read_pack(const Pack& pack, uint64_t offset_bytes, MutByteSpan out) const {
  if (pack.bytes.empty()) {
    if (const ByteSpan head = pack.heads.find(offset_bytes, out.size()); !head.empty()) {
      std::memcpy(out.data(), head.data(), head.size());
      return {};
    }
    Status status = store_->read(pack.object.key, offset_bytes, out);
    if (!status) return promised(std::move(status).error());
    return {};
  }
  std::memcpy(out.data(), pack.bytes.data() + offset_bytes, out.size());
  return {};
}

Status Chain::index_pack(size_t link, size_t pack, bool looks_back,
                         std::span<const TensorInfo> tensors) {
  const ObjectRef& object = packs_[pack].object;
  if (object.prefix_bytes > kMaxHeaderBytes + kLengthFieldBytes) {
    return corrupt("object '" + object.key + "' claims a header of more than 100,000,000 bytes");
  }
  std::vector<std::byte> prefix(object.prefix_bytes);
  SILT_TRY(read_pack(packs_[pack], 0, prefix));
  Result<PackIndex> index = parse_pack_index(prefix, object.length_bytes);
  if (!index) return std::move(index).error().in("pack '" + object.key + "'");
  for (const PackIndexEntry& entry : index->entries) {
    const std::optional<size_t> tensor = find_tensor(tensors, entry.tensor);
    if (!tensor) {
      return corrupt("pack '" + object.key + "' changes '" + entry.tensor +
                     "', a tensor that the version does not have");
    }
    Status status = index_sections(link, pack, looks_back, *tensor, tensors[*tensor],
                                   entry.offset_bytes, entry.size_bytes);
    if (!status) {
      return std::move(status).error().in("pack '" + object.key + "': tensor '" + entry.tensor +
                                          "'");
    }
  }
  return {};
}

Status Chain::index_sections(size_t link, size_t pack, bool looks_back, size_t tensor,
                             const TensorInfo& info, uint64_t offset_bytes, uint64_t size_bytes) {
  const WordMatrix matrix = word_matrix(info);
  std::vector<std::byte> head;
  while (size_bytes > 0) {
    head.resize(std::min<uint64_t>(size_bytes, kMaxSectionHeaderBytes));
    SILT_TRY(read_pack(packs_[pack], offset_bytes, head));
    SILT_ASSIGN(SectionHeader header, parse_section_header(head));
    if (header.section_bytes > size_bytes) return corrupt("a section is cut off");
    if (header.dtype != info.dtype) {
      return corrupt("a section has dtype " + std::string(dtype_info(header.dtype).name) +
                     ", the tensor " + std::string(dtype_info(info.dtype).name));
    }
    if (header.need == Need::kEarlierWords && !looks_back) {
      return corrupt("a section looks at the version before, which its delta does not name");
    }
    const Tile& tile = header.tile;
    if (tile.row_begin > matrix.rows || tile.rows > matrix.rows - tile.row_begin ||
        tile.col_begin > matrix.cols || tile.cols > matrix.cols - tile.col_begin) {
      return corrupt("a section's tile lies outside the tensor");
    }
    if (++piece_count_ > kMaxPieces) return corrupt("there are more sections than are allowed");
    pieces_[tensor].push_back({link, pack, offset_bytes, header});
    offset_bytes += header.section_bytes;
    size_bytes -= header.section_bytes;
  }
  return {};
}

unsigned Chain::transfers() const {
  const bool reads = std::ranges::any_of(
      packs_, [](const Pack& pack) { return pack.bytes.empty() && pack.object.length_bytes > 0; });
  if (!reads || store_->traits().local) return 0;
  return store_->traits().transfers;
}

uint64_t Chain::changed_elements() const {
  uint64_t changed = 0;
  for (const auto& pieces : pieces_) {
    for (const Piece& piece : pieces) changed += piece.header.changed;
  }
  return changed;
}

Sum128 Chain::change(size_t tensor) const {
  Sum128 sum;
  for (const Piece& piece : pieces_[tensor]) {
    sum += piece.header.sum_after - piece.header.sum_before;
  }
  return sum;
}

Result<ByteSpan> Chain::read(const Piece& piece, std::vector<std::byte>* scratch) const {
  const Pack& pack = packs_[piece.pack];
  if (!pack.bytes.empty()) {
    return ByteSpan(pack.bytes).subspan(piece.offset_bytes, piece.header.section_bytes);
  }
  scratch->resize(piece.header.section_bytes);
  SILT_TRY(read_pack(pack, piece.offset_bytes, *scratch));
  return ByteSpan(*scratch);
}

}  // namespace siltstone
