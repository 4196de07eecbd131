// The deltas between two versions, opened for staging: for every tensor, the sections of every
// link. A packed anchor is a link too: the first one, from the state that is zero everywhere.
//
// Who holds only some of the tensors reads the tables of a pack, which its commit proves, then only
// the chunks with sections of those, each proven by its SHA-256.
//
// Behind a network a large chain is staged while it arrives: packs are fetched in the order of
// their tensors, those of all links side by side, and a tensor is here once the last pack that has
// sections of it is here and proven.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "delta/grid.h"
#include "delta/section.h"
#include "repo/history.h"
#include "repo/pack_heads.h"
#include "repo/plan.h"
#include "repo/progress.h"
#include "repo/way_back.h"
#include "siltstone/store.h"

namespace siltstone {

struct ChainOptions {
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{256} << 20;  // packs beyond this are read piece by piece
  Meter* meter = nullptr;                       // of the fetch; borrowed
  // A chain that is larger, in more than one pack behind a network, is returned while its packs
  // still arrive. To know which tensor waits for which packs costs one more round of requests.
  uint64_t overlap_bytes = UINT64_MAX;
  // The tensors whose sections are wanted, ascending; of the others only what they add to the sums.
  std::optional<std::vector<size_t>> here = {};
  bool prove_chunks = false;  // of packs that are read whole, too: whether their tables are right
};

// Threads: const methods on many threads.
class Chain {
 public:
  // Where one section lies and what its header says.
  struct Piece {
    size_t link;
    size_t pack;
    uint64_t offset_bytes;  // in the pack
    SectionHeader header;
  };

  // Fetches and proves (SHA-256) the packs of all the path's links together, reads all section
  // headers, and checks that the links fit each other. `tensors` are those of the versions, sorted
  // by name, and borrowed. With `anchor`, its packed anchor comes before the deltas of `links`.
  static Result<std::unique_ptr<const Chain>> load(std::shared_ptr<Store> store,
                                                   const std::vector<Commit>& links,
                                                   std::span<const TensorInfo> tensors,
                                                   const ChainOptions& options,
                                                   const Commit* anchor = nullptr);

  // A chain of one delta that no commit names: a way back.
  static Result<std::unique_ptr<const Chain>> load(const WayBack& way,
                                                   std::span<const TensorInfo> tensors,
                                                   const ChainOptions& options);

  ~Chain();
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  // The tensors whose sections are here, in the order in which they came, but for the first `known`
  // of them: waits until there is one. Empty when there are no more, and all packs are proven.
  Result<std::vector<size_t>> arrived(size_t known) const;

  size_t links() const { return links_.size(); }
  // Of what is fetched.
  uint64_t size_bytes() const { return size_bytes_; }
  // Where reading sections is requests over a network: how many at once it is worth to make; else
  // 0.
  unsigned transfers() const;
  bool touches(size_t tensor) const { return touched_[tensor]; }

  // REQUIRES: the tensor has arrived, and is wanted.
  // By link, then by position.
  const std::vector<Piece>& pieces(size_t tensor) const { return pieces_[tensor]; }
  // What the links together add to the tensor's sum.
  Sum128 change(size_t tensor) const;
  // The section's bytes: `scratch` holds them if the pack is not in memory.
  Result<ByteSpan> read(const Piece& piece, std::vector<std::byte>* scratch) const;

  // REQUIRES: all have.
  uint64_t changed_elements() const;

 private:
  // A stretch of a pack that begins and ends with chunks.
  struct Part {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    std::vector<std::byte> bytes = {};  // once it has arrived
  };
  struct Entry {
    size_t tensor = 0;
    uint64_t offset_bytes = 0;
    uint64_t size_bytes = 0;
    std::optional<Sum128> change = {};  // of the tensor's sum, where the pack tells it
  };
  struct Pack {
    ObjectRef object;
    size_t link = 0;
    bool kept = true;                   // in `bytes`; else it is read on demand
    std::vector<std::byte> bytes = {};  // once it has arrived
    PackHeads heads = {};               // of one that is not kept, while it arrives
    // Where only some of it is fetched:
    bool whole = true;
    std::vector<Entry> wanted = {};
    std::vector<Part> parts = {};
    uint64_t data_begin = 0;
    std::vector<Sha256Digest> chunks = {};   // until they have arrived
    std::optional<ChunkHashes> hashes = {};  // where it is whole and its chunks are proven
    // Until the pack has arrived, where the chain overlaps with what follows:
    std::vector<std::byte> head = {};
    std::vector<size_t> tensors = {};

    uint64_t fetched_bytes() const;
  };
  // A delta, or an anchor that is packed.
  struct Link {
    std::string name;  // for errors
    const Artifact* artifact = nullptr;
    bool looks_back = false;  // sections may need the version before its start
    uint64_t promised_changes = 0;
    uint64_t changes = 0;
    bool whole = true;  // all its packs are
  };
  struct Entries {
    std::vector<Entry> all;  // by offset
    std::vector<Sha256Digest> chunks;
    uint64_t data_begin = 0;
  };
  using Found = std::vector<std::pair<size_t, Piece>>;  // tensor and piece

  Chain(std::shared_ptr<Store> store, std::span<const TensorInfo> tensors)
      : store_(std::move(store)),
        tensors_(tensors),
        elsewhere_(tensors.size()),
        pieces_(tensors.size()),
        touched_(tensors.size()) {}

  Status connect(const std::vector<Commit>& links, const Commit* anchor);
  Status begin(const ChainOptions& options);
  Status list_packs();
  Status choose_parts(const ChainOptions& options);
  Status choose_parts(Pack& pack, uint64_t limit_bytes);
  static std::vector<Part> parts_of(std::span<const Entry> wanted, uint64_t data_begin,
                                    uint64_t data_end);
  bool overlaps(const ChainOptions& options) const;
  Result<bool> read_heads();
  void order_packs(const ChainOptions& options);
  Status fetch(const ChainOptions& options);
  Status fetch_whole(const ChainOptions& options);
  Status fetch_parts(const ChainOptions& options);
  Status fetch_parts(std::span<Pack* const> packs, const ChainOptions& options);
  Status fetch_part(const Pack& pack, Part& part, const ChainOptions& options) const;
  Status arrive(uint64_t bytes, const ChainOptions& options) const;
  void fetch_meanwhile(const ChainOptions& options);

  Status take(size_t pack);
  Result<Entries> entries(const Pack& pack, ByteSpan head) const;
  Status find_pieces(size_t pack, Found* found);
  Status find_pieces(size_t pack, std::span<const Entry> wanted, Found* found) const;
  Status find_pieces(size_t pack, const Entry& entry, Found* found) const;
  Status settle(size_t tensor);
  Status finish();
  ByteSpan in_memory(const Pack& pack, uint64_t offset_bytes, uint64_t length_bytes) const;
  Status read_pack(const Pack& pack, uint64_t offset_bytes, MutByteSpan out) const;

  const std::shared_ptr<Store> store_;
  const std::span<const TensorInfo> tensors_;
  std::vector<Link> links_;
  std::vector<Pack> packs_;  // in the order in which they are fetched
  uint64_t size_bytes_ = 0;
  std::vector<char> here_;  // per tensor, where some are wanted

  mutable std::mutex mutex_;
  mutable std::condition_variable moved_;
  // Per tensor; guarded until it has arrived, as all below.
  std::vector<Sum128> elsewhere_;
  std::vector<std::vector<Piece>> pieces_;
  std::vector<char> touched_;
  uint64_t piece_count_ = 0;
  std::vector<uint32_t> missing_;  // packs per tensor; empty: not known
  std::vector<size_t> arrived_;
  bool over_ = false;
  Status status_;
  std::exception_ptr thrown_;
  std::atomic<bool> stopped_{false};
  std::jthread fetching_;
};

}  // namespace siltstone
