// A state read stretch by stretch: bytes of a base, moved along a chain of deltas block by block,
// with the tensors' sums before and after as proof. Everything that needs a version's words -
// publish, checkout, replicas, verify - reads them here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "delta/digest.h"
#include "delta/grid.h"
#include "repo/chain.h"
#include "siltstone/checkpoint.h"

namespace siltstone {

// Where the words of the base lie. Threads: const methods on many threads.
class StateBytes {
 public:
  virtual ~StateBytes() = default;
  // `tensor` counts in the state's tensors, sorted by name.
  virtual Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const = 0;
  // The tensor's bytes if they lie in memory, else empty.
  virtual ByteSpan resident(size_t) const { return {}; }
  // The fp32 words that read() rounds to bf16, where that is what it does (Checkpoint::masters).
  virtual ByteSpan masters(size_t) const { return {}; }
  // Where a read is a request over a network, and a stretch is read by one: how many at once it is
  // worth to make. Else 0.
  virtual unsigned transfers() const { return 0; }
};

// The tensors of a checkpoint. REQUIRES: its tensors are the state's.
class CheckpointBytes final : public StateBytes {
 public:
  explicit CheckpointBytes(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override;
  ByteSpan resident(size_t tensor) const override { return checkpoint_.resident(tensor); }
  ByteSpan masters(size_t tensor) const override { return checkpoint_.masters(tensor); }

 private:
  const Checkpoint& checkpoint_;
};

// A contiguous stretch of one tensor that is staged by one thread: a tile of the default grid, or
// the whole tensor where some link uses another grid.
struct Stretch {
  size_t tensor = 0;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  bool whole = false;  // not a tile of the default grid
};

class StateReader {
 public:
  // `chain` may be null. Both borrowed; `tensors` too. So is `earlier`, which reads the version
  // before the base, and is asked for where the chain's first link looks at it.
  StateReader(std::span<const TensorInfo> tensors, const StateBytes& base, const Chain* chain,
              const StateReader* earlier = nullptr);

  std::span<const TensorInfo> tensors() const { return tensors_; }
  // Where a worker waits for requests over a network: how many at once it is worth to make; else 0.
  // `has_words`: the base's words are given to cursors.
  unsigned transfers(bool has_words = false) const {
    const unsigned of_chain = chain_ != nullptr ? chain_->transfers() : 0;
    return has_words ? of_chain : std::max(base_.transfers(), of_chain);
  }
  // Chain::arrived(): which tensors can be read.
  Result<std::vector<size_t>> arrived(size_t known) const;
  bool touches(size_t tensor) const { return chain_ != nullptr && chain_->touches(tensor); }
  // kUnsupported if a tensor must be staged whole and is larger than `limit_bytes`.
  Result<std::vector<Stretch>> stretches(size_t tensor, uint64_t limit_bytes) const;

  // Reads one stretch from front to back; one per thread, reused.
  class Cursor {
   public:
    explicit Cursor(const StateReader& reader) : reader_(&reader) {}

    // Opens the sections that touch the stretch. `words`: the base's, if the caller has read them
    // already; they are then used until the last block.
    Status begin(const Stretch& stretch, ByteSpan words = {});
    bool done() const { return at_ == stretch_.length_bytes; }
    // How many bytes the next call gives.
    uint64_t next_bytes() const;
    // The next block in the state's final words. Lies in `scratch` (of next_bytes()) or, if the
    // base is resident and no delta touches it, in the base itself.
    Result<ByteSpan> next(MutByteSpan scratch);
    // After the last block: compares what was read with the sums that the sections promise.
    Status finish();
    // Whether the sections changed the last block that next() gave.
    bool changed() const { return changed_; }
    // What that block was before the chain's last link, with keep_last_change() before begin();
    // empty if that link did not change it.
    ByteSpan before_last_link() const { return before_last_; }
    void keep_last_change() { keeps_last_ = true; }

    const Sum128& before() const { return before_; }
    const Sum128& after() const { return after_; }

    // Called after each link that changed a block (for verify): what it added to the sum.
    std::function<void(size_t link, const Sum128& change)> on_link;

   private:
    struct Open {
      const Chain::Piece* piece;
      std::vector<std::byte> scratch;
      std::unique_ptr<Section> section;
      uint64_t counted = 0;
    };
    Status find_words(ByteSpan words);
    static bool looks_back(const Open& open) {
      return open.piece->header.need == Need::kEarlierWords;
    }
    using OpenRange = std::span<Open>;  // sections of one link
    Status apply_links(uint64_t offset, MutByteSpan block, Sum128* sum);
    Status find_earlier(OpenRange link, ByteSpan block);
    Status apply(Open& open, MutByteSpan block);
    Status apply_aligned(Open& open, uint64_t begin_element, MutByteSpan block);
    Status apply_anywhere(Open& open, MutByteSpan tensor);

    const StateReader* reader_;
    Stretch stretch_;
    ByteSpan words_;  // of the base, where they lie in memory
    std::vector<std::byte> fetched_;
    WordMatrix matrix_;
    std::vector<Open> open_;
    std::vector<std::byte> gather_;
    // What the block was one version before the link that is applied; of which link that holds.
    std::vector<std::byte> earlier_;
    std::optional<size_t> earlier_of_;
    std::vector<std::byte> past_;             // the block before a link
    std::unique_ptr<Cursor> earlier_cursor_;  // where the first link looks back
    bool keeps_last_ = false;
    std::vector<std::byte> kept_;
    ByteSpan before_last_;
    uint64_t at_ = 0;
    uint64_t block_bytes_ = 0;
    bool changed_ = false;
    Sum128 before_;
    Sum128 after_;
  };

 private:
  bool needs_whole(size_t tensor) const;

  std::span<const TensorInfo> tensors_;
  const StateBytes& base_;
  const Chain* chain_;
  const StateReader* earlier_;
};

// Stretches in which both readers can read a tensor that they hold with the same dtype and shape:
// `a_tensor` of `a` is `b_tensor` of `b`. Their `tensor` is a_tensor.
Result<std::vector<Stretch>> shared_stretches(const StateReader& a, size_t a_tensor,
                                              const StateReader& b, size_t b_tensor,
                                              uint64_t limit_bytes);

// The stretch's final words, whole.
Status read_stretch(const StateReader& reader, const Stretch& stretch, std::vector<std::byte>* out);

// Sums of tensors, added to by many threads.
class SumTable {
 public:
  explicit SumTable(size_t tensors) : sums_(tensors) {}
  void add(size_t tensor, const Sum128& sum) {
    const std::lock_guard lock(mutex_);
    sums_[tensor] += sum;
  }
  const Sum128& operator[](size_t tensor) const { return sums_[tensor]; }

 private:
  std::mutex mutex_;
  std::vector<Sum128> sums_;
};

// The rows of a state: tensors (sorted by name) and their sums.
std::vector<StateRow> state_rows(std::span<const TensorInfo> tensors,
                                 const std::vector<Sum128>& sums);

// Sums of all tensors, by reading everything.
Result<std::vector<Sum128>> sum_all(std::span<const TensorInfo> tensors, const StateBytes& bytes,
                                    unsigned threads);

// How many threads may each use `each_bytes` of a budget.
unsigned threads_within(unsigned threads, uint64_t budget_bytes, uint64_t each_bytes);
// How many workers: as many as threads, or as `transfers` that they wait for.
unsigned workers_within(unsigned transfers, unsigned threads, uint64_t budget_bytes,
                        uint64_t each_bytes);

}  // namespace siltstone
