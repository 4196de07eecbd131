#include "delta/codecs/guess.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/bytes.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/class_layout.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {
namespace {

constexpr uint64_t kSamples = 4096;         // elements or changes looked at
constexpr uint64_t kStretch = 64;           // neighbouring ones taken together
constexpr uint64_t kStreamHeadBytes = 40;   // frame header and entropy table of one zstd stream
constexpr uint64_t kClassSamples = 65'536;  // elements: of most exponents only some change
constexpr uint64_t kClassStretch = 8192;
constexpr uint64_t kClassParamsBytes = 12;
constexpr uint64_t kClassBlockBytes = 40;  // head and states
constexpr unsigned kFraction = 8;          // logarithms carry this many fractional bits

// log2(value) in units of 2^-kFraction, linear between powers of two. REQUIRES: value > 0.
uint64_t log2_fixed(uint64_t value) {
  const auto octave = static_cast<unsigned>(std::bit_width(value | 1)) - 1;
  const uint64_t mantissa =
      octave >= kFraction ? value >> (octave - kFraction) : value << (kFraction - octave);
  return (uint64_t{octave} << kFraction) + mantissa - (uint64_t{1} << kFraction);
}

// Bits (in units of 2^-kFraction) that an order-0 coder needs for the counted symbols.
template <size_t N>
uint64_t entropy_fixed(const std::array<uint32_t, N>& counts) {
  uint64_t total = 0;
  for (const uint32_t count : counts) total += count;
  if (total == 0) return 0;
  const uint64_t log_total = log2_fixed(total);
  uint64_t bits = 0;
  for (const uint32_t count : counts)
    if (count != 0) bits += count * (log_total - log2_fixed(count));
  return bits;
}

// Calls visit(index) for about `samples` of `count` things, in stretches spread evenly.
template <class Visit>
uint64_t sample(uint64_t count, uint64_t samples, uint64_t stretch, Visit visit) {
  const uint64_t stretches = std::min(ceil_div(count, stretch), samples / stretch);
  uint64_t visited = 0;
  for (uint64_t i = 0; i < stretches; ++i) {
    const uint64_t begin = count / stretches * i;
    const uint64_t end = std::min(begin + stretch, count);
    for (uint64_t at = begin; at < end; ++at, ++visited) visit(at);
  }
  return visited;
}
template <class Visit>
uint64_t sample(uint64_t count, Visit visit) {
  return sample(count, kSamples, kStretch, visit);
}

uint64_t scaled(uint64_t bits_fixed, uint64_t sampled, uint64_t count) {
  return sampled == 0 ? 0 : (bits_fixed >> kFraction) * count / sampled / 8;
}

// Bits of the steps of sampled changes: an entropy-coded size class and raw bits below it.
template <class W>
uint64_t step_bits_fixed(const TileChange& change, uint64_t* sampled) {
  const WordRanks<W> ranks(dtype_info(change.dtype).order);
  std::array<uint32_t, 130> classes{};
  uint64_t raw_bits = 0;
  *sampled = sample(change.changed(), [&](uint64_t index) {
    const auto from = load_le<W>(change.replaced_words.data() + index * sizeof(W));
    const auto to = load_le<W>(change.changed_words.data() + index * sizeof(W));
    const auto step = ranks.step(from, to);
    const W far = static_cast<W>((step < 0 ? W(W{0} - W(step)) : W(step)) - 1);
    const auto size = static_cast<unsigned>(std::bit_width(far));
    raw_bits += size > 1 ? size - 1 : 0;
    ++classes[2 * size + (step < 0 ? 1 : 0)];
  });
  return entropy_fixed(classes) + (raw_bits << kFraction);
}

// What the sampled words of one exponent do.
struct ExponentSample {
  uint64_t seen = 0;
  uint64_t changed = 0;
  uint64_t far = 0;       // changed by more than one
  uint64_t raw_bits = 0;  // behind the symbols
  SymbolCounts symbols{};
};

template <class W>
std::vector<ExponentSample> sample_exponents(const TileChange& change) {
  const ExponentField field = exponent_field(change.dtype);
  const WordRanks<W> ranks(dtype_info(change.dtype).order);
  std::vector<ExponentSample> samples(field.exponents);
  const auto load = [](std::span<const std::byte> words, uint64_t i) {
    return load_le<W>(words.data() + i * sizeof(W));
  };
  sample(change.elements, kClassSamples, kClassStretch, [&](uint64_t element) {
    const W from = load(change.old_words, element);
    const auto step = static_cast<W>(ranks.step(from, load(change.new_words, element)));
    ExponentSample& sample = samples[field.of(from)];
    ++sample.seen;
    if (step == 0) return;
    const StepSymbol symbol = step_symbol(step);
    ++sample.changed;
    sample.far += static_cast<W>(step + 1) > 2 ? 1 : 0;
    sample.raw_bits += symbol.raw_bits;
    ++sample.symbols[symbol.symbol];
  });
  return samples;
}

// Gaps and signs, or a symbol for each, whichever is smaller: about what the threshold does.
uint64_t class_bits_fixed(ExponentSample& sample, unsigned word_bits) {
  if (sample.changed == 0) return 0;
  constexpr uint64_t kGapAndSign = 666;  // log2(e), the sign, and what Rice codes lose
  const uint64_t gaps =
      sample.changed * (log2_fixed(sample.seen) - log2_fixed(sample.changed) + kGapAndSign) +
      ((sample.far * (32 + word_bits)) << kFraction);
  sample.symbols[0] = static_cast<uint32_t>(sample.seen - sample.changed);
  return std::min(gaps, entropy_fixed(sample.symbols) + (sample.raw_bits << kFraction));
}

}  // namespace

uint64_t guess_step_bytes(const TileChange& change) {
  uint64_t sampled = 0;
  const uint64_t step_bits = with_word_type(dtype_info(change.dtype).word_bytes, [&](auto word) {
    return step_bits_fixed<decltype(word)>(change, &sampled);
  });
  uint64_t bytes = scaled(step_bits, sampled, change.changed());
  for (uint64_t block = 0; block < change.blocks(); ++block) {
    const uint64_t changed = block_changes(change, block).count();
    if (changed == 0) continue;
    // The entropy of a set of that density: log2(elements / changed) per change, and for the
    // unchanged ones log2(e) per change, which fades as nothing is left unchanged.
    constexpr uint64_t kLog2E = 369;  // in units of 2^-kFraction
    const uint64_t elements = block_elements(change.elements, change.log2_block, block);
    const uint64_t bits = changed * (log2_fixed(elements) - log2_fixed(changed)) +
                          changed * (elements - changed) / elements * kLog2E;
    bytes += (bits >> kFraction) / 8 + std::min(kStreamHeadBytes, changed);
  }
  return bytes;
}

uint64_t guess_class_bytes(const TileChange& change) {
  const unsigned word_bits = 8 * dtype_info(change.dtype).word_bytes;
  std::vector<ExponentSample> samples = with_word_type(
      word_bits / 8, [&](auto word) { return sample_exponents<decltype(word)>(change); });
  uint64_t bits = 0;
  uint64_t changed = 0;
  for (ExponentSample& sample : samples) {
    bits += class_bits_fixed(sample, word_bits);
    changed += sample.changed;
  }
  // A sample that met no change says nothing of where they are.
  if (changed == 0) return guess_step_bytes(change);
  uint64_t bytes = scaled(bits, changed, change.changed());
  for (uint64_t block = 0; block < change.blocks(); ++block)
    bytes += block_changes(change, block).count() != 0 ? kClassBlockBytes : 0;
  return bytes + kClassParamsBytes;
}

uint64_t guess_plane_bytes(const TileChange& change,
                           const std::function<uint64_t(uint64_t element)>& code) {
  const unsigned word_bytes = dtype_info(change.dtype).word_bytes;
  const bool repeats = dtype_info(change.dtype).order != WordOrder::kSignMagnitude;
  uint64_t elements = 0;  // of the blocks that have changes
  uint64_t bytes = 0;
  for (uint64_t block = 0; block < change.blocks(); ++block) {
    if (block_changes(change, block).count() == 0) continue;
    elements += block_elements(change.elements, change.log2_block, block);
    bytes += kStreamHeadBytes * word_bytes;
  }
  std::vector<std::array<uint32_t, 256>> counts(word_bytes);
  const uint64_t sampled = sample(change.elements, [&](uint64_t element) {
    const uint64_t coded = code(element);
    for (unsigned p = 0; p < word_bytes; ++p) ++counts[p][static_cast<uint8_t>(coded >> (8 * p))];
  });
  for (const auto& plane : counts) {
    // Huffman codes take at least a bit, less only in parts that hold one byte; repeats, where they
    // are looked for, take about twice the entropy.
    const uint64_t entropy = entropy_fixed(plane);
    const uint64_t least = repeats        ? std::min(2 * entropy, sampled << kFraction)
                           : entropy == 0 ? 0
                                          : (sampled << kFraction) * 7 / 10;
    bytes += std::min(scaled(std::max(entropy, least), sampled, elements), elements);
  }
  return bytes;
}

bool looks_random(ByteSpan bytes) {
  std::array<uint32_t, 256> counts{};
  const uint64_t sampled =
      sample(bytes.size(), [&](uint64_t i) { ++counts[static_cast<uint8_t>(bytes[i])]; });
  // A sample of 256 symbols looks a little less even than what it was taken from.
  constexpr uint64_t kBits = 8 * 256 - 256 / 10;
  return sampled == kSamples && entropy_fixed(counts) >= sampled * kBits;
}

}  // namespace siltstone
