#include "delta/codecs/guess.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/bytes.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/class_record.h"
#include "delta/kernels/word_steps.h"

namespace siltstone {
namespace {

constexpr uint64_t kSamples = 4096;        // elements or changes looked at
constexpr uint64_t kStretch = 64;          // neighbouring ones taken together
constexpr uint64_t kStreamHeadBytes = 40;  // frame header and entropy table of one zstd stream
constexpr uint64_t kLeastSamples = 4;      // of an exponent, to judge it by
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
template <class Count, size_t N>
uint64_t entropy_fixed(const std::array<Count, N>& counts) {
  uint64_t total = 0;
  for (const Count count : counts) total += count;
  if (total == 0) return 0;
  const uint64_t log_total = log2_fixed(total);
  uint64_t bits = 0;
  for (const Count count : counts)
    if (count != 0) bits += count * (log_total - log2_fixed(count));
  return bits;
}

// Calls visit(begin, n) for stretches of `count` things, spread evenly, kSamples in all or a few
// more or less. Returns how many there were.
template <class Visit>
uint64_t sample_stretches(uint64_t count, Visit visit) {
  const uint64_t stretches = std::min(ceil_div(count, kStretch), kSamples / kStretch);
  uint64_t visited = 0;
  for (uint64_t i = 0; i < stretches; ++i) {
    const uint64_t begin = count / stretches * i;
    const uint64_t n = std::min(kStretch, count - begin);
    visit(begin, n);
    visited += n;
  }
  return visited;
}
template <class Visit>
uint64_t sample(uint64_t count, Visit visit) {
  return sample_stretches(count, [&](uint64_t begin, uint64_t n) {
    for (uint64_t at = begin; at < begin + n; ++at) visit(at);
  });
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

// Bits of the gaps before sampled changes: an entropy-coded size class and raw bits below it. The
// gap before the first change of a run is not told by positions and counts as its own position.
uint64_t gap_bits_fixed(const TileChange& change, uint64_t* sampled) {
  std::array<uint32_t, 18> classes{};
  uint64_t raw_bits = 0;
  *sampled = sample(change.changed(), [&](uint64_t index) {
    const uint32_t position = change.positions[index];
    const uint32_t before = index == 0 ? 0 : change.positions[index - 1] + 1U;
    const uint32_t gap = position >= before ? position - before : position;
    const auto size = static_cast<unsigned>(std::bit_width(gap));
    raw_bits += size > 1 ? size - 1 : 0;
    ++classes[size];
  });
  return entropy_fixed(classes) + (raw_bits << kFraction);
}

// What sampled words of some exponents do.
struct WordsSample {
  uint64_t seen = 0;     // of the sample of elements
  uint64_t changed = 0;  // of the sample of changes, as what follows
  uint64_t far = 0;      // changed by more than one
  uint64_t raw_bits = 0;
  std::array<uint64_t, kStepSymbols> symbols{};

  WordsSample& operator+=(const WordsSample& other) {
    seen += other.seen;
    changed += other.changed;
    far += other.far;
    raw_bits += other.raw_bits;
    for (size_t s = 0; s < symbols.size(); ++s) symbols[s] += other.symbols[s];
    return *this;
  }
};

// Two samples, because one of the elements would hardly meet a change at low densities.
struct ExponentSamples {
  std::vector<WordsSample> of;
  uint64_t elements = 0;  // in the samples
  uint64_t changes = 0;
};

template <class W>
ExponentSamples sample_exponents(const TileChange& change) {
  const ExponentField field = exponent_field(change.dtype);
  const WordRanks<W> ranks(dtype_info(change.dtype).order);
  ExponentSamples samples;
  samples.of.resize(field.exponents);
  const auto load = [](std::span<const std::byte> words, uint64_t i) {
    return load_le<W>(words.data() + i * sizeof(W));
  };
  samples.elements = sample(
      change.elements, [&](uint64_t i) { ++samples.of[field.of(load(change.old_words, i))].seen; });
  samples.changes = sample(change.changed(), [&](uint64_t i) {
    const W from = load(change.replaced_words, i);
    const auto step = static_cast<W>(ranks.step(from, load(change.changed_words, i)));
    const StepSymbol symbol = step_symbol(step);
    WordsSample& sample = samples.of[field.of(from)];
    ++sample.changed;
    sample.far += static_cast<W>(step + 1) > 2 ? 1 : 0;
    sample.raw_bits += symbol.raw_bits;
    ++sample.symbols[symbol.symbol];
  });
  return samples;
}

// What the encoder makes of samples: the threshold, then gaps and signs of each class above it and
// a symbol for every word below, whose tables depend on how far below.
class ClassGuess {
 public:
  ClassGuess(const TileChange& change, const ExponentSamples& samples)
      : change_(change), samples_(samples) {}

  uint64_t bits_fixed() const {
    const size_t threshold = this->threshold();
    std::array<WordsSample, kEncodedTables> dense{};
    std::array<WordsSample, kEncodedSparse> sparse{};
    for (size_t e = 0; e < samples_.of.size(); ++e) {
      if (e < threshold) {
        dense[std::min<size_t>(threshold - 1 - e, kEncodedTables - 1)] += samples_.of[e];
      } else {
        sparse[std::min<size_t>(e - threshold, kEncodedSparse - 1)] += samples_.of[e];
      }
    }
    uint64_t bits = 0;
    for (WordsSample& words : dense) bits += symbol_bits_fixed(words);
    for (const WordsSample& words : sparse) bits += gap_bits_fixed(words);
    return bits;
  }

 private:
  uint64_t seen(const WordsSample& words) const {
    return words.seen * change_.elements / samples_.elements;
  }
  uint64_t changes(uint64_t sampled) const {
    return sampled * change_.changed() / samples_.changes;
  }

  size_t threshold() const {
    for (size_t e = samples_.of.size(); e-- > 0;) {
      const WordsSample& words = samples_.of[e];
      if (words.seen >= kLeastSamples && 9 * changes(words.changed) >= seen(words)) return e + 1;
    }
    return 0;
  }

  uint64_t symbol_bits_fixed(WordsSample& words) const {
    if (words.changed == 0) return 0;
    for (uint64_t& count : words.symbols) count = changes(count);
    const uint64_t changed = changes(words.changed);
    words.symbols[0] = std::max(seen(words), changed) - changed;
    return entropy_fixed(words.symbols) + (changes(words.raw_bits) << kFraction);
  }

  uint64_t gap_bits_fixed(const WordsSample& words) const {
    if (words.changed == 0) return 0;
    constexpr uint64_t kGapAndSign = 666;  // log2(e), the sign, and what Rice codes lose
    const uint64_t changed = std::max<uint64_t>(changes(words.changed), 1);
    const uint64_t log_gap = log2_fixed(std::max(seen(words), changed)) - log2_fixed(changed);
    const unsigned word_bits = 8 * dtype_info(change_.dtype).word_bytes;
    return changed * (log_gap + kGapAndSign) + (changes(words.far * (32 + word_bits)) << kFraction);
  }

  const TileChange& change_;
  const ExponentSamples& samples_;
};

}  // namespace

uint64_t guess_step_bytes(const TileChange& change) {
  uint64_t sampled = 0;
  const uint64_t step_bits = with_word_type(dtype_info(change.dtype).word_bytes, [&](auto word) {
    return step_bits_fixed<decltype(word)>(change, &sampled);
  });
  uint64_t bytes = scaled(step_bits, sampled, change.changed());
  uint64_t gap_bits = gap_bits_fixed(change, &sampled);
  // A gap is a byte where no entropy coder follows.
  if (change.effort == Effort::kFast) gap_bits = std::max(gap_bits, sampled << (kFraction + 3));
  bytes += scaled(gap_bits, sampled, change.changed());
  for (uint64_t block = 0; block < change.blocks(); ++block)
    bytes += std::min(kStreamHeadBytes, block_changes(change, block).count());
  return bytes;
}

uint64_t guess_class_bytes(const TileChange& change) {
  const ExponentSamples samples =
      with_word_type(dtype_info(change.dtype).word_bytes,
                     [&](auto word) { return sample_exponents<decltype(word)>(change); });
  uint64_t bytes = (ClassGuess(change, samples).bits_fixed() >> kFraction) / 8;
  for (uint64_t block = 0; block < change.blocks(); ++block)
    bytes += block_changes(change, block).count() != 0 ? kClassBlockBytes : 0;
  return bytes + kClassParamsBytes;
}

uint64_t guess_plane_bytes(const TileChange& change, const SplitPlanes& split) {
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
  std::array<std::byte, 8 * kStretch> planes;
  const uint64_t sampled = sample_stretches(change.elements, [&](uint64_t begin, uint64_t n) {
    split(begin, n, planes.data());
    for (unsigned p = 0; p < word_bytes; ++p)
      for (uint64_t i = 0; i < n; ++i) ++counts[p][static_cast<uint8_t>(planes[p * n + i])];
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
