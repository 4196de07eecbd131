// The second pass of the class encoder: a block's bytes.
#include <algorithm>

#include "delta/codecs/class_record.h"
#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

constexpr uint16_t kSymbolMask = kRansTableSymbols - 1;

void put_unary(uint64_t quotient, BitWriter* bits) {
  for (; quotient >= 32; quotient -= 32) bits->put(0, 32);
  bits->put(uint64_t{1} << quotient, static_cast<unsigned>(quotient) + 1);
}

// Symbols that their tables lack become escapes.
std::vector<uint16_t> with_escapes(const std::vector<uint16_t>& codes, const ClassTables& tables) {
  std::vector<uint16_t> out = codes;
  for (uint16_t& code : out)
    if (tables.lacks(code)) code = static_cast<uint16_t>((code & ~kSymbolMask) | kEscapeSymbol);
  return out;
}

// A block's symbols entropy coded.
struct CodedSymbols {
  std::array<uint32_t, 1U << kMaxLog2Lanes> states;
  std::span<const uint16_t> words;
};

CodedSymbols code_symbols(std::span<const uint16_t> codes, std::span<const uint32_t> window_ends,
                          const RansRange* ranges, unsigned log2_lanes) {
  thread_local std::vector<uint16_t> words;  // bounded by the largest block's elements
  if (words.size() < codes.size() + kRansSlackWords) words.resize(codes.size() + kRansSlackWords);
  uint16_t* const end = words.data() + words.size();
  uint16_t* word = end;
  CodedSymbols coded;
  coded.states.fill(1U << kRansLog2Low);
  for (size_t window = window_ends.size(); window-- > 0;) {
    const uint32_t begin = window == 0 ? 0 : window_ends[window - 1];
    word = kernels().encode_symbols(
        {ranges, codes.data() + begin, window_ends[window] - begin, log2_lanes},
        coded.states.data(), word);
  }
  coded.words = {word, end};
  return coded;
}

// Writers are passed by value: one that only a function knows stays in registers.

template <class W>
BitWriter put_sparse(const ClassRecord<W>& record, const ClassParams& params, BitWriter bits) {
  for (unsigned k = 0; k < kEncodedSparse; ++k)
    for (const uint32_t gap : record.gaps[k])
      put_unary((gap & kGapMask) >> params.rice_bits[k], &bits);
  for (unsigned k = 0; k < kEncodedSparse; ++k) {
    const unsigned rice = params.rice_bits[k];
    for (const uint32_t gap : record.gaps[k]) bits.put(gap & ((1U << rice) - 1), rice);
  }
  for (const auto& gaps : record.gaps)
    for (const uint32_t gap : gaps) bits.put((gap & kDownBit) != 0 ? 1 : 0, 1);
  uint32_t ordinal = 0;
  for (unsigned k = 0; k < kEncodedSparse; ++k) {
    auto exception = record.exceptions[k].begin();
    for (const uint32_t gap : record.gaps[k]) {
      if ((gap & kExceptionBit) != 0) {
        bits.put(ordinal, 32);
        bits.put_long(*exception++, 8 * sizeof(W));
      }
      ++ordinal;
    }
  }
  return bits;
}

template <class W>
void put_wide_step(W step, BitWriter* bits) {
  const StepSymbol parts = step_symbol(step);
  if constexpr (sizeof(W) < 8) {
    bits->put(parts.raw, parts.raw_bits);
  } else {
    bits->put_long(parts.raw, parts.raw_bits);
  }
}

// As many steps at a time as one put takes: their bits joined.
template <class W>
BitWriter put_raw_bits(const ClassRecord<W>& record, BitWriter bits) {
  constexpr size_t kJoined = sizeof(W) < 4 ? 3 : 1;
  const std::vector<W>& steps = record.wide_steps;
  size_t i = 0;
  for (; i + kJoined <= steps.size() && sizeof(W) < 8; i += kJoined) {
    uint64_t joined = 0;
    unsigned width = 0;
    for (size_t j = 0; j < kJoined; ++j) {
      const StepSymbol parts = wide_step_symbol(steps[i + j]);
      joined |= parts.raw << width;
      width += parts.raw_bits;
    }
    bits.put(joined, width);
  }
  for (; i < steps.size(); ++i) put_wide_step(steps[i], &bits);
  return bits;
}

// Escapes are the symbols that `tables` lack.
template <class W>
BitWriter put_raw_bits_and_escapes(const ClassRecord<W>& record, const ClassTables& tables,
                                   BitWriter bits) {
  auto wide = record.wide_steps.begin();
  for (const uint16_t code : record.codes) {
    const unsigned symbol = code & kSymbolMask;
    const bool is_wide = symbol >= kFirstWideSymbol;
    if (tables.lacks(code)) {
      bits.put_long(is_wide ? *wide : step_of_symbol<W>(symbol, 0), 8 * sizeof(W));
    } else if (is_wide) {
      put_wide_step(*wide, &bits);
    }
    if (is_wide) ++wide;
  }
  return bits;
}

}  // namespace

ClassTables::ClassTables(const ClassParams& params)
    : ranges_(params.tables.size() * kRansTableSymbols) {
  for (unsigned d = 0; d < params.tables.size(); ++d) {
    const StepTable& table = params.table(d);
    uint16_t begin = 0;
    for (unsigned s = 0; s < kStepSymbols; ++s) {
      ranges_[d * kRansTableSymbols + s] = {table.of[s], begin};
      begin = static_cast<uint16_t>(begin + table.of[s]);
    }
  }
}

template <class W>
std::vector<std::byte> write_class_block(const ClassRecord<W>& record, const ClassParams& params,
                                         const ClassTables& tables) {
  const bool escapes =
      std::ranges::any_of(record.codes, [&tables](uint16_t code) { return tables.lacks(code); });
  const CodedSymbols coded =
      escapes ? code_symbols(with_escapes(record.codes, tables), record.window_ends,
                             tables.ranges(), params.log2_lanes)
              : code_symbols(record.codes, record.window_ends, tables.ranges(), params.log2_lanes);
  ClassBlockHead head;
  head.dense = !record.codes.empty();
  head.words = static_cast<uint32_t>(coded.words.size());
  // At most: an escape has as many bits as its word.
  uint64_t other_bits = (escapes ? record.codes.size() : record.wide_steps.size()) * 8 * sizeof(W);
  for (unsigned k = 0; k < kEncodedSparse; ++k) {
    const unsigned rice = params.rice_bits[k];
    head.counts[k] = static_cast<uint32_t>(record.gaps[k].size());
    for (const uint32_t gap : record.gaps[k]) head.high_bits += ((gap & kGapMask) >> rice) + 1;
    head.exceptions += static_cast<uint32_t>(record.exceptions[k].size());
    other_bits +=
        record.gaps[k].size() * (rice + 1) + record.exceptions[k].size() * (32 + 8 * sizeof(W));
  }
  std::vector<std::byte> out(kMaxBlockHeadBytes + 4 * params.lanes() +
                             2 * align_up(coded.words.size(), 2) +
                             (head.high_bits + other_bits) / 8 + 2 * BitWriter::kTailBytes);
  BitWriter start(out.data());
  write_block_head(head, kEncodedSparse, &start);
  std::byte* at = out.data() + align_up(static_cast<uint64_t>(start.end() - out.data()), 4);
  if (head.dense) {
    std::memcpy(at, coded.states.data(), 4 * params.lanes());
    at += 4 * params.lanes();
    std::memcpy(at, coded.words.data(), 2 * coded.words.size());
    at += 2 * align_up(coded.words.size(), 2);
  }
  BitWriter bits = put_sparse(record, params, BitWriter(at));
  bits = escapes ? put_raw_bits_and_escapes(record, tables, bits) : put_raw_bits(record, bits);
  out.resize(align_up(static_cast<uint64_t>(bits.end() - out.data()), 4));
  return out;
}

template std::vector<std::byte> write_class_block(const ClassRecord<uint8_t>&, const ClassParams&,
                                                  const ClassTables&);
template std::vector<std::byte> write_class_block(const ClassRecord<uint16_t>&, const ClassParams&,
                                                  const ClassTables&);
template std::vector<std::byte> write_class_block(const ClassRecord<uint32_t>&, const ClassParams&,
                                                  const ClassTables&);
template std::vector<std::byte> write_class_block(const ClassRecord<uint64_t>&, const ClassParams&,
                                                  const ClassTables&);

}  // namespace siltstone
