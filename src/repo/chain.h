// The deltas between two versions, opened for staging: for every tensor, the sections of every
// link. A packed anchor is a link too: the first one, from the state that is zero everywhere.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "delta/grid.h"
#include "delta/section.h"
#include "repo/history.h"
#include "repo/pack_heads.h"
#include "repo/plan.h"
#include "repo/way_back.h"
#include "siltstone/repository.h"
#include "siltstone/store.h"

namespace siltstone {

struct ChainOptions {
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{256} << 20;  // packs beyond this are read piece by piece
  Progress progress = {};                       // of the fetch
  uint64_t later_bytes = 0;                     // what the work that follows will do
};

class Chain {
 public:
  // Where one section lies and what its header says.
  struct Piece {
    size_t link;
    size_t pack;
    uint64_t offset_bytes;  // in the pack
    SectionHeader header;
  };

  // Reads and proves (SHA-256) the packs of all the path's links together, reads all section
  // headers, and checks that the links fit each other. `tensors` are those of the versions, sorted
  // by name. With `anchor`, its packed anchor comes before the deltas of `links`.
  static Result<Chain> load(std::shared_ptr<Store> store, const std::vector<Commit>& links,
                            std::span<const TensorInfo> tensors, const ChainOptions& options,
                            const Commit* anchor = nullptr);

  // A chain of one delta that no commit names: a way back.
  static Result<Chain> load(const WayBack& way, std::span<const TensorInfo> tensors,
                            const ChainOptions& options);

  size_t links() const { return link_count_; }
  uint64_t bytes_fetched() const { return bytes_fetched_; }
  // Where reading sections is requests over a network: how many at once it is worth to make; else
  // 0.
  unsigned transfers() const;
  uint64_t changed_elements() const;
  bool touches(size_t tensor) const { return !pieces_[tensor].empty(); }
  // By link, then by position.
  const std::vector<Piece>& pieces(size_t tensor) const { return pieces_[tensor]; }
  // What the links together add to the tensor's sum.
  Sum128 change(size_t tensor) const;

  // The section's bytes: `scratch` holds them if the pack is not in memory.
  Result<ByteSpan> read(const Piece& piece, std::vector<std::byte>* scratch) const;

 private:
  struct Pack {
    ObjectRef object;
    std::vector<std::byte> bytes;  // empty: read on demand
    PackHeads heads;               // then, while the pack is indexed
  };
  // A delta, or an anchor that is packed.
  struct Link {
    const Artifact* artifact = nullptr;
    std::string name;  // for errors
    size_t first_pack = 0;
    size_t end_pack = 0;
  };
  static Result<std::vector<Link>> connect(const std::vector<Commit>& links, const Commit* anchor);
  Status load(std::vector<Link> links, std::span<const TensorInfo> tensors,
              const ChainOptions& options);
  Status list_packs(std::vector<Link>* links);
  Status fetch(const std::vector<Link>& links, const ChainOptions& options);
  Status index(size_t number, const Link& link, std::span<const TensorInfo> tensors);
  // `looks_back`: whether sections may need the version before the link's start.
  Status index_pack(size_t link, size_t pack, bool looks_back, std::span<const TensorInfo> tensors);
  Status index_sections(size_t link, size_t pack, bool looks_back, size_t tensor,
                        const TensorInfo& info, uint64_t offset_bytes, uint64_t size_bytes);
  Status read_pack(const Pack& pack, uint64_t offset_bytes, MutByteSpan out) const;

  std::shared_ptr<Store> store_;
  std::vector<Pack> packs_;
  std::vector<std::vector<Piece>> pieces_;  // per tensor
  size_t link_count_ = 0;
  uint64_t bytes_fetched_ = 0;
  uint64_t piece_count_ = 0;
};

}  // namespace siltstone
