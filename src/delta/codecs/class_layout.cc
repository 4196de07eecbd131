#include "delta/codecs/class_layout.h"

#include <algorithm>
#include <string>

#include "base/try.h"
#include "delta/codecs/block_view.h"

namespace siltstone {
namespace {

constexpr unsigned kLanesBits = 2;
constexpr unsigned kSparseBits = 4;
constexpr unsigned kThresholdBits = 12;
constexpr unsigned kTablesBits = 5;
constexpr unsigned kBaseBits = 6;
constexpr unsigned kRiceBits = 5;
constexpr unsigned kSymbolsBits = 7;  // of a sent table
constexpr unsigned kWidthBits = 5;    // of a number in a block head

Error corrupt(const std::string& problem) {
  return {Code::kCorrupt, "class parameters: " + problem};
}

// Symbols up to the last that occurs.
unsigned used_symbols(const StepTable& table) {
  unsigned used = kStepSymbols;
  while (used > 0 && table.of[used - 1] == 0) --used;
  return used;
}

Result<StepTable> get_table(BitReader* bits) {
  const auto used = static_cast<unsigned>(bits->get(kSymbolsBits));
  if (used == 0 || used > kStepSymbols)
    return corrupt("a table of " + std::to_string(used) + " symbols, 1 to " +
                   std::to_string(kStepSymbols) + " possible");
  StepTable table;
  uint32_t sum = 0;
  for (unsigned s = 0; s + 1 < used; ++s) {
    const uint32_t frequency = get_frequency(bits);
    sum += frequency;
    if (sum >= kTotal) return corrupt("the frequencies of a table exceed 1024");
    table.of[s] = static_cast<uint16_t>(frequency);
  }
  table.of[used - 1] = static_cast<uint16_t>(kTotal - sum);
  return table;
}

void put_number(uint32_t number, BitWriter* bits) {
  const auto width = static_cast<unsigned>(std::bit_width(number));
  bits->put(width, kWidthBits);
  bits->put(number, width);
}
uint32_t get_number(BitReader* bits) {
  const auto width = static_cast<unsigned>(bits->get(kWidthBits));
  return static_cast<uint32_t>(bits->get(width));
}

}  // namespace

ExponentField exponent_field(DType dtype) {
  const DTypeInfo& info = dtype_info(dtype);
  if (info.order != WordOrder::kSignMagnitude) return {};
  const uint64_t sign = uint64_t{1} << (8 * info.word_bytes - 1);
  return {sign - 1, info.mantissa_bits, static_cast<unsigned>(sign >> info.mantissa_bits)};
}

ClassCuts ClassParams::cuts(const ExponentField& field) const {
  ClassCuts cuts;
  cuts.magnitude_mask = field.magnitude_mask;
  cuts.cuts = sparse();
  for (unsigned c = 0; c < cuts.cuts; ++c)
    cuts.from[c] = uint64_t{std::min(threshold + c, field.exponents)} << field.shift;
  return cuts;
}

const StepTable& ClassParams::standard_of(unsigned table) const {
  const unsigned index =
      std::min(base_table + table / contexts * kTablesPerBinade, kStandardTables - 1);
  return contexts == 1 ? standard_table(index) : momentum_table(index, table % contexts);
}

StepCoding ClassParams::coding(DType dtype) const {
  const ExponentField field = exponent_field(dtype);
  return {dtype_info(dtype).order, field.magnitude_mask, field.shift, threshold,
          static_cast<unsigned>(tables.size()) / contexts};
}

uint64_t sent_table_bits(const StepTable& table) {
  uint64_t bits = kSymbolsBits;
  for (unsigned s = 0; s + 1 < used_symbols(table); ++s) bits += frequency_bits(table.of[s]);
  return bits;
}

std::vector<std::byte> write_class_params(const ClassParams& params) {
  uint64_t table_bits = 0;
  for (const auto& table : params.tables) table_bits += table ? sent_table_bits(*table) : 0;
  std::vector<std::byte> out(32 + table_bits / 8 + BitWriter::kTailBytes);
  BitWriter bits(out.data());
  bits.put(params.log2_lanes - kMinLog2Lanes, kLanesBits);
  bits.put(params.sparse(), kSparseBits);
  bits.put(params.threshold, kThresholdBits);
  bits.put(params.tables.size() / params.contexts, kTablesBits);
  bits.put(params.base_table, kBaseBits);
  for (const auto& table : params.tables) bits.put(table ? 1 : 0, 1);
  for (const uint8_t rice : params.rice_bits) bits.put(rice, kRiceBits);
  for (const auto& table : params.tables) {
    if (!table) continue;
    const unsigned used = used_symbols(*table);
    bits.put(used, kSymbolsBits);
    for (unsigned s = 0; s + 1 < used; ++s) put_frequency(table->of[s], &bits);
  }
  out.resize(static_cast<size_t>(bits.end() - out.data()));
  return out;
}

Result<ClassParams> read_class_params(ByteSpan bytes, const ExponentField& field,
                                      unsigned contexts) {
  std::vector<std::byte> padded(bytes.begin(), bytes.end());
  padded.resize(bytes.size() + BitReader::kTailBytes);
  BitReader bits(ByteSpan(padded).first(bytes.size()));
  ClassParams params;
  params.contexts = contexts;
  params.log2_lanes = kMinLog2Lanes + static_cast<unsigned>(bits.get(kLanesBits));
  const auto sparse = static_cast<unsigned>(bits.get(kSparseBits));
  params.threshold = static_cast<unsigned>(bits.get(kThresholdBits));
  const auto binades = static_cast<unsigned>(bits.get(kTablesBits));
  params.base_table = static_cast<unsigned>(bits.get(kBaseBits));
  if (sparse == 0 || sparse > kMaxSparse)
    return corrupt(std::to_string(sparse) + " sparse classes, 1 to 8 possible");
  if (binades == 0 || binades > kMaxBinadeTables)
    return corrupt(std::to_string(binades) + " tables, 1 to 16 possible");
  if (params.threshold > field.exponents)
    return corrupt("threshold " + std::to_string(params.threshold) + " for a dtype of " +
                   std::to_string(field.exponents) + " exponents");
  const unsigned tables = binades * contexts;
  std::vector<bool> sent;
  for (unsigned i = 0; i < tables; ++i) sent.push_back(bits.get(1) != 0);
  for (unsigned k = 0; k < sparse; ++k)
    params.rice_bits.push_back(static_cast<uint8_t>(bits.get(kRiceBits)));
  params.tables.assign(tables, std::nullopt);
  for (unsigned i = 0; i < tables; ++i) {
    if (!sent[i]) continue;
    SILT_ASSIGN(params.tables[i], get_table(&bits));
  }
  if (bits.overrun()) return corrupt("cut off after " + std::to_string(bytes.size()) + " bytes");
  if (bytes.size() * 8 - bits.used_bits() >= 8) return corrupt("bytes left over");
  const auto rest = static_cast<unsigned>(bytes.size() * 8 - bits.used_bits());
  if (bits.get(rest) != 0) return corrupt("padding that is not zero");
  return params;
}

void write_block_head(const ClassBlockHead& head, unsigned sparse, BitWriter* bits) {
  for (unsigned k = 0; k < sparse; ++k) put_number(head.counts[k], bits);
  bits->put(head.dense ? 1 : 0, 1);
  if (head.dense) put_number(head.words, bits);
  if (head.sparse_changes() == 0) return;
  put_number(head.high_bits, bits);
  put_number(head.exceptions, bits);
}

Result<ClassBlock> open_class_block(uint64_t block, ByteSpan payload, uint64_t elements,
                                    const ClassParams& params) {
  std::array<std::byte, kMaxBlockHeadBytes + BitReader::kTailBytes> start{};
  const size_t shown = std::min<size_t>(payload.size(), kMaxBlockHeadBytes);
  std::copy_n(payload.begin(), shown, start.begin());
  BitReader bits(ByteSpan(start).first(shown));
  ClassBlock open;
  ClassBlockHead& head = open.head;
  for (unsigned k = 0; k < params.sparse(); ++k) {
    head.counts[k] = get_number(&bits);
    open.changes += head.counts[k];
  }
  head.dense = bits.get(1) != 0;
  if (head.dense) head.words = get_number(&bits);
  if (open.changes != 0) {
    head.high_bits = get_number(&bits);
    head.exceptions = get_number(&bits);
  }
  if (open.changes > elements)
    return corrupt_block(block, std::to_string(open.changes) + " changes stated for " +
                                    std::to_string(elements) + " elements");
  if (head.words > elements || head.exceptions > open.changes || head.high_bits < open.changes ||
      head.high_bits > open.changes + elements)
    return corrupt_block(block, "a head that states more than its elements can hold");
  if (bits.overrun()) return corrupt_block(block, "the head is cut off");
  const uint64_t states_at = align_up(ceil_div(bits.used_bits(), 8), 4);
  const uint64_t words_at = states_at + (head.dense ? 4 * params.lanes() : 0);
  const uint64_t bits_at = words_at + align_up(uint64_t{2} * head.words, 4);
  if (bits_at > payload.size())
    return corrupt_block(block, "parts of " + std::to_string(bits_at) + " bytes in a payload of " +
                                    std::to_string(payload.size()));
  const auto padding = static_cast<unsigned>(8 * states_at - bits.used_bits());
  if (bits.get(padding) != 0 ||
      (head.words % 2 != 0 && load_le<uint16_t>(payload.data() + bits_at - 2) != 0))
    return corrupt_block(block, "padding that is not zero");
  open.states = payload.subspan(states_at, words_at - states_at);
  open.words = payload.subspan(words_at, uint64_t{2} * head.words);
  open.bits = payload.subspan(bits_at);
  return open;
}

}  // namespace siltstone
