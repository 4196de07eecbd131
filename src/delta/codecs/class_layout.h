// The bytes of the codecs class and momentum: parameters of a section and heads of its blocks
// (docs/format/delta_pack.md, "class" and "momentum").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "delta/codecs/bits.h"
#include "delta/codecs/step_tables.h"
#include "delta/kernels/classes.h"
#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

inline constexpr unsigned kMaxSparse = kMaxCuts;
inline constexpr unsigned kMaxBinadeTables = 16;
inline constexpr unsigned kMinLog2Lanes = 2;
inline constexpr unsigned kMaxLog2Lanes = 5;
inline constexpr unsigned kLog2StateLow = 16;  // rANS states are in [2^16, 2^32)

// Where the exponent of a word stands. Words that have none count as of exponent 0.
struct ExponentField {
  uint64_t magnitude_mask = 0;  // the word without its sign; 0: no exponent
  unsigned shift = 0;
  unsigned exponents = 1;  // how many there are
  unsigned of(uint64_t word) const {
    return static_cast<unsigned>((word & magnitude_mask) >> shift);
  }
};
ExponentField exponent_field(DType dtype);

struct ClassParams {
  unsigned contexts = 1;  // tables of each exponent: 1, or kMomentumContexts
  unsigned log2_lanes = kMinLog2Lanes;
  unsigned threshold = 0;  // words of a lower exponent are dense
  unsigned base_table = 0;
  std::vector<uint8_t> rice_bits;  // per sparse class
  // By the exponent of a dense word, then by context; empty: standard.
  std::vector<std::optional<StepTable>> tables{std::nullopt};

  unsigned lanes() const { return 1U << log2_lanes; }
  unsigned sparse() const { return static_cast<unsigned>(rice_bits.size()); }
  const StepTable& standard_of(unsigned table) const;
  const StepTable& table(unsigned table) const {
    return tables[table] ? *tables[table] : standard_of(table);
  }
  ClassCuts cuts(const ExponentField& field) const;
  StepCoding coding(DType dtype) const;
};

std::vector<std::byte> write_class_params(const ClassParams& params);
Result<ClassParams> read_class_params(ByteSpan bytes, const ExponentField& field,
                                      unsigned contexts);

// Bits that a table takes when it is sent.
uint64_t sent_table_bits(const StepTable& table);

// What a block payload begins with.
struct ClassBlockHead {
  std::array<uint32_t, kMaxSparse> counts{};  // changes of each sparse class
  uint32_t high_bits = 0;
  uint32_t words = 0;       // of rANS
  uint32_t exceptions = 0;  // sparse changes by more than one
  bool dense = false;       // whether the block has dense words

  uint64_t sparse_changes() const {
    uint64_t sum = 0;
    for (const uint32_t count : counts) sum += count;
    return sum;
  }
};

inline constexpr size_t kMaxBlockHeadBytes = 64;
void write_block_head(const ClassBlockHead& head, unsigned sparse, BitWriter* bits);

// Where the parts of a block payload lie.
struct ClassBlock {
  ClassBlockHead head;
  uint64_t changes = 0;  // sparse
  ByteSpan states;
  ByteSpan words;
  ByteSpan bits;  // high, low, sign, exceptions, raw bits
};
Result<ClassBlock> open_class_block(uint64_t block, ByteSpan payload, uint64_t elements,
                                    const ClassParams& params);

}  // namespace siltstone
