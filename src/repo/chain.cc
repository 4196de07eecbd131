#include "repo/chain.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/pack.h"
#include "repo/objects.h"
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
Status Chain::connect(const std::vector<Commit>& links, const Commit* anchor) {
  const auto add = [this](std::string name, const Artifact& artifact) {
    links_.push_back(
        {std::move(name), &artifact, !artifact.earlier_root.empty(), artifact.changed_elements});
  };
  const std::string* root = nullptr;
  const std::string* earlier_root = nullptr;
  if (anchor != nullptr) {
    const Artifact* packed = anchor->find(ArtifactKind::kAnchor);
    if (packed == nullptr || !packed->packed)
      return Error{Code::kInternal, anchor->id.name() + " has no packed anchor"};
    add("anchor of " + anchor->id.name(), *packed);
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
    add("delta of " + link.id.name(), *delta);
    root = &link.root;
    earlier_root = &delta->from_root;
  }
  return {};
}

Result<std::unique_ptr<const Chain>> Chain::load(std::shared_ptr<Store> store,
                                                 const std::vector<Commit>& links,
                                                 std::span<const TensorInfo> tensors,
                                                 const ChainOptions& options,
                                                 const Commit* anchor) {
  std::unique_ptr<Chain> chain(new Chain(std::move(store), tensors));
  SILT_TRY(chain->connect(links, anchor));
  SILT_TRY(chain->begin(options));
  return std::unique_ptr<const Chain>(std::move(chain));
}

Result<std::unique_ptr<const Chain>> Chain::load(const WayBack& way,
                                                 std::span<const TensorInfo> tensors,
                                                 const ChainOptions& options) {
  std::unique_ptr<Chain> chain(new Chain(way.store, tensors));
  chain->links_.push_back({"the way back", &way.artifact, !way.artifact.earlier_root.empty(),
                           way.artifact.changed_elements});
  SILT_TRY(chain->begin(options));
  return std::unique_ptr<const Chain>(std::move(chain));
}

Chain::~Chain() {
  stopped_ = true;
}

Status Chain::begin(const ChainOptions& options) {
  SILT_TRY(list_packs());
  if (options.here) SILT_TRY(choose_parts(options));
  for (const Pack& pack : packs_) {
    if (!checked_add(size_bytes_, pack.fetched_bytes(), &size_bytes_))
      return corrupt("the packs together are larger than any store");
  }
  if (options.meter != nullptr) options.meter->expect(size_bytes_);
  bool overlap = overlaps(options);
  if (overlap) {
    SILT_ASSIGN(overlap, read_heads());
  }
  order_packs(options);
  if (overlap) {
    fetching_ = std::jthread([this, options] { fetch_meanwhile(options); });
    return {};
  }
  SILT_TRY(fetch(options));
  over_ = true;
  return {};
}

Status Chain::list_packs() {
  std::vector<std::vector<ObjectRef>> objects(links_.size());
  SILT_TRY(
      parallel_for(links_.size(), store_->traits().transfers, [&](uint64_t i, unsigned) -> Status {
        Link& link = links_[i];
        Result<std::vector<ObjectRef>> found =
            artifact_objects(*store_, *std::exchange(link.artifact, nullptr));
        if (!found) return std::move(found).error().in(link.name);
        objects[i] = *std::move(found);
        return {};
      }));
  for (size_t i = 0; i < links_.size(); ++i) {
    for (ObjectRef& object : objects[i]) {
      if (object.prefix_bytes > kMaxHeaderBytes + kLengthFieldBytes) {
        return corrupt("object '" + object.key + "' claims a header of more than 100,000,000 bytes")
            .in(links_[i].name);
      }
      packs_.push_back({std::move(object), i});
    }
  }
  return {};
}

uint64_t Chain::Pack::fetched_bytes() const {
  if (whole) return object.length_bytes;
  uint64_t sum = object.prefix_bytes;
  for (const Part& part : parts) sum += part.length_bytes;
  return sum;
}

bool Chain::overlaps(const ChainOptions& options) const {
  if (store_->traits().local || packs_.size() < 2 || size_bytes_ <= options.overlap_bytes)
    return false;
  uint64_t head_bytes = 0;
  for (const Pack& pack : packs_) head_bytes += pack.object.prefix_bytes;
  return head_bytes <= options.memory_bytes / 4;
}

// Which tensors each pack has something of: believed before the packs are proven. Returns false if
// a head makes no sense; what is wrong then shows when its pack is proven.
Result<bool> Chain::read_heads() {
  std::atomic<bool> sense{true};
  SILT_TRY(
      parallel_for(packs_.size(), store_->traits().transfers, [&](uint64_t i, unsigned) -> Status {
        Pack& pack = packs_[i];
        std::vector<Entry> wanted = pack.wanted;
        if (pack.whole) {
          pack.head.resize(pack.object.prefix_bytes);
          SILT_TRY(read_pack(pack, 0, pack.head).in(links_[pack.link].name));
          Result<Entries> found = entries(pack, pack.head);
          if (!found) {
            sense = false;
            return {};
          }
          wanted = std::move(found->all);
        }
        for (const Entry& entry : wanted) pack.tensors.push_back(entry.tensor);
        std::ranges::sort(pack.tensors);
        return {};
      }));
  if (!sense) {
    for (Pack& pack : packs_) pack.tensors.clear();
    return false;
  }
  missing_.resize(tensors_.size());
  for (const Pack& pack : packs_) {
    for (const size_t tensor : pack.tensors) {
      touched_[tensor] = true;
      ++missing_[tensor];
    }
  }
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (missing_[t] == 0) arrived_.push_back(t);
  }
  return true;
}

void Chain::order_packs(const ChainOptions& options) {
  std::ranges::stable_sort(packs_, {}, [](const Pack& pack) {
    return pack.tensors.empty() ? size_t{0} : pack.tensors.front();
  });
  const uint64_t head_bytes = options.memory_bytes / 4 / std::max<size_t>(1, packs_.size());
  uint64_t bytes = 0;
  for (Pack& pack : packs_) {
    bytes += pack.fetched_bytes();
    pack.kept = bytes <= options.memory_bytes;
    if (!pack.kept && pack.whole) pack.heads = PackHeads(pack.object, head_bytes);
  }
}

Status Chain::fetch(const ChainOptions& options) {
  SILT_TRY(fetch_parts(options));
  SILT_TRY(fetch_whole(options));
  return finish();
}

Status Chain::arrive(uint64_t bytes, const ChainOptions& options) const {
  if (stopped_) return Error{Code::kCancelled, "nobody waits for the packs any more"};
  return options.meter != nullptr ? options.meter->add(bytes) : Status();
}

Status Chain::fetch_whole(const ChainOptions& options) {
  std::vector<Promised> wanted;
  for (size_t i = 0; i < packs_.size(); ++i) {
    Pack& pack = packs_[i];
    if (!pack.whole) continue;
    Promised one{&pack.object, pack.kept ? &pack.bytes : nullptr, links_[pack.link].name};
    if (options.prove_chunks) pack.hashes.emplace(pack.object.prefix_bytes);
    if (!pack.kept || pack.hashes) {
      one.pass = [&pack](ByteSpan piece) {
        if (!pack.kept) pack.heads.take(piece);
        if (pack.hashes) pack.hashes->update(piece);
      };
    }
    one.proven = [this, i] { return take(i); };
    wanted.push_back(std::move(one));
  }
  ProveOptions prove;
  prove.threads = options.threads;
  prove.memory_bytes = options.memory_bytes / 2;
  prove.arrived = [&](uint64_t bytes) { return arrive(bytes, options); };
  return prove_objects(*store_, wanted, prove);
}

void Chain::fetch_meanwhile(const ChainOptions& options) {
  Status status;
  std::exception_ptr thrown;
  try {
    status = fetch(options);
  } catch (...) {
    thrown = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  status_ = std::move(status);
  thrown_ = thrown;
  over_ = true;
  moved_.notify_all();
}

Result<std::vector<size_t>> Chain::arrived(size_t known) const {
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [&] { return over_ || arrived_.size() > known; });
  if (thrown_) std::rethrow_exception(thrown_);
  if (!status_) return status_.error();
  return std::vector<size_t>(arrived_.begin() + static_cast<ptrdiff_t>(known), arrived_.end());
}

// A pack, or what is wanted of it, has arrived and is what its commit promises.
Status Chain::take(size_t number) {
  Pack& pack = packs_[number];
  Found found;
  SILT_TRY(find_pieces(number, &found));
  pack.hashes.reset();
  pack.heads = {};
  pack.head = {};
  pack.wanted = {};
  pack.chunks = {};
  if (!pack.kept) {
    for (Part& part : pack.parts) part.bytes = {};
  }
  const std::lock_guard lock(mutex_);
  piece_count_ += found.size();
  if (piece_count_ > kMaxPieces) return corrupt("there are more sections than are allowed");
  const bool all_come = missing_.empty();
  for (auto& [tensor, piece] : found) {
    links_[pack.link].changes += piece.header.changed;
    pieces_[tensor].push_back(piece);
    if (all_come) touched_[tensor] = true;
  }
  for (const size_t tensor : pack.tensors) {
    if (--missing_[tensor] == 0) SILT_TRY(settle(tensor));
  }
  pack.tensors = {};
  moved_.notify_all();
  return {};
}

// REQUIRES: mutex_ is held. All sections of the tensor are here.
Status Chain::settle(size_t tensor) {
  SILT_TRY(check_pieces(tensors_[tensor], pieces_[tensor]));
  arrived_.push_back(tensor);
  return {};
}

Status Chain::finish() {
  const std::lock_guard lock(mutex_);
  for (const Link& link : links_) {
    if (link.changes == link.promised_changes) continue;
    if (!link.whole && link.changes < link.promised_changes) continue;
    return corrupt("its sections change " + std::to_string(link.changes) +
                   " elements, the commit says " + std::to_string(link.promised_changes))
        .in(link.name);
  }
  if (!missing_.empty()) return {};
  for (size_t t = 0; t < tensors_.size(); ++t) SILT_TRY(settle(t));
  return {};
}

// The stretch of the pack, if it lies in memory, else empty.
ByteSpan Chain::in_memory(const Pack& pack, uint64_t offset_bytes, uint64_t length_bytes) const {
  if (pack.whole) {
    if (pack.bytes.empty()) return pack.heads.find(offset_bytes, length_bytes);
    return ByteSpan(pack.bytes).subspan(offset_bytes, length_bytes);
  }
  const auto behind = std::ranges::upper_bound(pack.parts, offset_bytes, {}, &Part::offset_bytes);
  if (behind == pack.parts.begin() || std::prev(behind)->bytes.empty()) return {};
  const Part& part = *std::prev(behind);
  return ByteSpan(part.bytes).subspan(offset_bytes - part.offset_bytes, length_bytes);
}

Status Chain::read_pack(const Pack& pack, uint64_t offset_bytes, MutByteSpan out) const {
  const ByteSpan found = in_memory(pack, offset_bytes, out.size());
  if (!found.empty()) {
    std::memcpy(out.data(), found.data(), found.size());
    return {};
  }
  Status status = store_->read(pack.object.key, offset_bytes, out);
  if (!status) return promised(std::move(status).error());
  return {};
}

Result<Chain::Entries> Chain::entries(const Pack& pack, ByteSpan head) const {
  const bool has_tables = !pack.object.prefix_sha256.empty();
  if (has_tables && sha256_hex(head) != pack.object.prefix_sha256)
    return corrupt("object '" + pack.object.key + "' has another header than its commit says");
  Result<PackIndex> index = parse_pack_index(head, pack.object.length_bytes);
  if (!index) return std::move(index).error().in("pack '" + pack.object.key + "'");
  if (has_tables && index->sums.size() < index->entries.size())
    return corrupt("pack '" + pack.object.key + "' has no tables, which its commit promises");
  Entries found;
  for (size_t i = 0; i < index->entries.size(); ++i) {
    const PackIndexEntry& entry = index->entries[i];
    const std::optional<size_t> tensor = find_tensor(tensors_, entry.tensor);
    if (!tensor) {
      return corrupt("pack '" + pack.object.key + "' changes '" + entry.tensor +
                     "', a tensor that the version does not have");
    }
    found.all.push_back({*tensor, entry.offset_bytes, entry.size_bytes});
    if (!index->sums.empty()) found.all.back().change = index->sums[i];
  }
  found.chunks = std::move(index->chunks);
  found.data_begin = index->data_begin;
  return found;
}

Status Chain::find_pieces(size_t number, Found* found) {
  Pack& pack = packs_[number];
  if (!pack.whole) return find_pieces(number, pack.wanted, found);
  std::vector<std::byte> head(pack.object.prefix_bytes);
  SILT_TRY(read_pack(pack, 0, head));
  if (!missing_.empty() && head != pack.head)
    return corrupt("object '" + pack.object.key + "' was another one a moment ago");
  SILT_ASSIGN(const Entries listed, entries(pack, head));
  const std::vector<Sha256Digest>& chunks = listed.chunks;
  if (pack.hashes && !chunks.empty() && pack.hashes->finish() != chunks)
    return corrupt("pack '" + pack.object.key + "': its table says other SHA-256 of its chunks");
  return find_pieces(number, listed.all, found);
}

Status Chain::find_pieces(size_t number, std::span<const Entry> wanted, Found* found) const {
  const std::string& key = packs_[number].object.key;
  for (const Entry& entry : wanted) {
    const size_t first = found->size();
    Status status = find_pieces(number, entry, found);
    Sum128 change;
    for (size_t i = first; i < found->size(); ++i) change += (*found)[i].second.header.change();
    if (status && entry.change && change != *entry.change)
      status = corrupt("its sections add another sum than the pack's table says");
    if (!status) {
      return std::move(status).error().in("pack '" + key + "': tensor '" +
                                          tensors_[entry.tensor].name + "'");
    }
  }
  return {};
}

Status Chain::find_pieces(size_t number, const Entry& entry, Found* found) const {
  const Pack& pack = packs_[number];
  const TensorInfo& info = tensors_[entry.tensor];
  const WordMatrix matrix = word_matrix(info);
  uint64_t offset_bytes = entry.offset_bytes;
  uint64_t size_bytes = entry.size_bytes;
  std::vector<std::byte> head;
  while (size_bytes > 0) {
    head.resize(std::min<uint64_t>(size_bytes, kMaxSectionHeaderBytes));
    SILT_TRY(read_pack(pack, offset_bytes, head));
    SILT_ASSIGN(SectionHeader header, parse_section_header(head));
    if (header.section_bytes > size_bytes) return corrupt("a section is cut off");
    if (header.dtype != info.dtype) {
      return corrupt("a section has dtype " + std::string(dtype_info(header.dtype).name) +
                     ", the tensor " + std::string(dtype_info(info.dtype).name));
    }
    if (header.need == Need::kEarlierWords && !links_[pack.link].looks_back) {
      return corrupt("a section looks at the version before, which its delta does not name");
    }
    const Tile& tile = header.tile;
    if (tile.row_begin > matrix.rows || tile.rows > matrix.rows - tile.row_begin ||
        tile.col_begin > matrix.cols || tile.cols > matrix.cols - tile.col_begin) {
      return corrupt("a section's tile lies outside the tensor");
    }
    if (found->size() == kMaxPieces) return corrupt("there are more sections than are allowed");
    found->push_back({entry.tensor, {pack.link, number, offset_bytes, header}});
    offset_bytes += header.section_bytes;
    size_bytes -= header.section_bytes;
  }
  return {};
}

unsigned Chain::transfers() const {
  const bool reads = std::ranges::any_of(packs_, [](const Pack& pack) { return !pack.kept; });
  if (!reads || store_->traits().local) return 0;
  return store_->traits().transfers;
}

uint64_t Chain::changed_elements() const {
  uint64_t changed = 0;
  for (const Link& link : links_) changed += link.changes;
  return changed;
}

Sum128 Chain::change(size_t tensor) const {
  Sum128 sum = elsewhere_[tensor];
  for (const Piece& piece : pieces_[tensor]) sum += piece.header.change();
  return sum;
}

Result<ByteSpan> Chain::read(const Piece& piece, std::vector<std::byte>* scratch) const {
  const Pack& pack = packs_[piece.pack];
  const uint64_t length_bytes = piece.header.section_bytes;
  const ByteSpan found = in_memory(pack, piece.offset_bytes, length_bytes);
  if (!found.empty()) return found;
  scratch->resize(length_bytes);
  SILT_TRY(read_pack(pack, piece.offset_bytes, *scratch));
  return ByteSpan(*scratch);
}

}  // namespace siltstone
