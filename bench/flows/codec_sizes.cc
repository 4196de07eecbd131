// Bits per changed element and speed of every codec between consecutive checkpoints.
//
// usage: codec_sizes CHECKPOINT CHECKPOINT...      safetensors files in order of time
//        codec_sizes FOLDER                        FOLDER/*/model.safetensors in order of name
// Sizes count whole sections: headers, offset tables and padding. Speeds are of one thread, in
// dense bytes of the tensors that changed, encoding and decoding in memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/files.h"
#include "delta/diff.h"
#include "delta/section.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

constexpr uint64_t kLimitBytes = uint64_t{64} << 30;

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "codec_sizes: %s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *std::move(result);
}
void must(const Status& status) {
  if (!status) must(Result<int>(status.error()));
}

struct Checkpoint {
  std::string bytes;
  SafetensorsHeader header;
  uint64_t data_begin = 0;

  ByteSpan tensor(const SafetensorsEntry& entry) const {
    return as_bytes(bytes).subspan(data_begin + entry.offset_bytes, entry.info.size_bytes);
  }
};

Checkpoint load(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  checkpoint.bytes = must(read_file(path, kLimitBytes));
  const ByteSpan all = as_bytes(checkpoint.bytes);
  if (all.size() < kLengthFieldBytes) must(Result<int>(Error{Code::kCorrupt, "short file"}));
  const uint64_t length = must(parse_length_field(all.first(kLengthFieldBytes), all.size()));
  checkpoint.data_begin = kLengthFieldBytes + length;
  checkpoint.header = must(parse_safetensors_header(as_text(all.subspan(kLengthFieldBytes, length)),
                                                    all.size() - checkpoint.data_begin));
  return checkpoint;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Totals {
  uint64_t changed = 0;
  uint64_t section_bytes = 0;
  uint64_t dense_bytes = 0;
  uint64_t sections = 0;
  double encode_seconds = 0;
  double decode_seconds = 0;
};

void decode(ByteSpan bytes, const WordMatrix& matrix, const TileChange& change, Totals* totals) {
  std::vector<std::byte> words(change.old_words.begin(), change.old_words.end());
  const auto start = Clock::now();
  const Section section = must(Section::open(bytes, matrix, change.dtype));
  const uint64_t block_bytes = uint64_t{matrix.word_bytes} << change.log2_block;
  for (uint64_t block = 0; block < change.blocks(); ++block) {
    const uint64_t begin = block * block_bytes;
    const uint64_t length = std::min<uint64_t>(block_bytes, words.size() - begin);
    must(section.apply(block, MutByteSpan(words).subspan(begin, length)));
  }
  totals->decode_seconds += seconds_since(start);
  if (!std::ranges::equal(words, change.new_words))
    must(Result<int>(Error{Code::kInternal, "decoded words differ"}));
}

// One tensor as one tile; nullptr: the codec that the library would choose.
void measure(const TileChange& change, const Codec* codec, Totals* totals) {
  const Tile tile{0, change.elements, 0, 1};
  const WordMatrix matrix{change.elements, 1, dtype_info(change.dtype).word_bytes};
  std::vector<std::byte> out;
  const auto start = Clock::now();
  must(append_section(change, tile, {}, {}, codec, &out));
  totals->encode_seconds += seconds_since(start);
  decode(out, matrix, change, totals);
  totals->changed += change.changed();
  totals->section_bytes += out.size();
  totals->dense_bytes += change.new_words.size();
  ++totals->sections;
}

void measure_pair(const Checkpoint& base, const Checkpoint& next, std::vector<Totals>* totals) {
  for (const SafetensorsEntry& entry : next.header.entries) {
    const auto old = std::ranges::find_if(base.header.entries, [&](const SafetensorsEntry& other) {
      return other.info == entry.info;
    });
    if (old == base.header.entries.end() || entry.info.size_bytes == 0) continue;
    const ByteSpan old_words = base.tensor(*old);
    const ByteSpan new_words = next.tensor(entry);
    const uint8_t word_bytes = dtype_info(entry.info.dtype).word_bytes;
    ChangeList changes(word_bytes);
    changes.append(new_words, old_words);
    if (changes.changed() == 0) continue;
    const TileChange change{.dtype = entry.info.dtype,
                            .elements = new_words.size() / word_bytes,
                            .old_words = old_words,
                            .new_words = new_words,
                            .positions = changes.positions(),
                            .run_ends = changes.run_ends(),
                            .changed_words = changes.words(),
                            .replaced_words = changes.replaced_words()};
    const auto codecs = all_codecs();
    for (size_t i = 0; i < codecs.size(); ++i) measure(change, codecs[i], &(*totals)[i]);
    measure(change, nullptr, &totals->back());
  }
}

std::vector<std::filesystem::path> checkpoint_paths(int argc, char** argv) {
  std::vector<std::filesystem::path> paths(argv + 1, argv + argc);
  if (paths.size() != 1 || !std::filesystem::is_directory(paths[0])) return paths;
  const std::filesystem::path folder = paths[0];
  paths.clear();
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (std::filesystem::exists(entry.path() / "model.safetensors"))
      paths.push_back(entry.path() / "model.safetensors");
  std::ranges::sort(paths);
  return paths;
}

int run(int argc, char** argv) {
  const std::vector<std::filesystem::path> paths = checkpoint_paths(argc, argv);
  if (paths.size() < 2) {
    std::fprintf(stderr, "usage: codec_sizes CHECKPOINT CHECKPOINT... | FOLDER\n");
    return 2;
  }
  std::vector<Totals> totals(all_codecs().size() + 1);
  Checkpoint base = load(paths[0]);
  for (size_t i = 1; i < paths.size(); ++i) {
    Checkpoint next = load(paths[i]);
    measure_pair(base, next, &totals);
    base = std::move(next);
  }
  std::printf("%-8s %12s %9s %12s %10s %12s %12s\n", "codec", "changed", "sections", "bytes",
              "bits/chg", "encode GB/s", "decode GB/s");
  for (size_t i = 0; i < totals.size(); ++i) {
    const Totals& sum = totals[i];
    const auto dense = static_cast<double>(sum.dense_bytes) / 1e9;
    std::printf("%-8s %12llu %9llu %12llu %10.3f %12.2f %12.2f\n",
                i < all_codecs().size() ? std::string(all_codecs()[i]->name()).c_str() : "chosen",
                static_cast<unsigned long long>(sum.changed),
                static_cast<unsigned long long>(sum.sections),
                static_cast<unsigned long long>(sum.section_bytes),
                8.0 * static_cast<double>(sum.section_bytes) / static_cast<double>(sum.changed),
                dense / sum.encode_seconds, dense / sum.decode_seconds);
  }
  return 0;
}

}  // namespace
}  // namespace siltstone

int main(int argc, char** argv) {
  return siltstone::run(argc, argv);
}
