// Speed of the codecs on one thread, in dense bytes of the tensor, beside a plain read of both
// states in the same rounds.
//
//   bench_codecs OLD NEW [--earlier FILE] [--mib N] [--rounds N] [--codec NAME]...
//
// The bf16 words of the checkpoints are strung together and repeated to N MiB (default 256), then
// cut into tiles of 8 MiB as publishing does. Encoding includes the diff, decoding the checks of
// the section and the change of the words in memory. NAME is a codec or an effort; codec momentum
// needs what came before OLD.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "delta/diff.h"
#include "delta/grid.h"
#include "delta/section.h"
#include "kernels/reads.h"
#include "paired.h"
#include "siltstone/checkpoint.h"

namespace siltstone::bench {
namespace {

constexpr uint64_t kWord = 2;
constexpr uint64_t kTileElements = kTileBytes / kWord;

volatile uint64_t g_sink;

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "bench_codecs: %s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *std::move(result);
}

std::vector<std::byte> bf16_words(const char* path, uint64_t bytes) {
  const auto checkpoint = must(open_checkpoint(path));
  std::vector<std::byte> words;
  for (size_t t = 0; t < checkpoint->tensors().size(); ++t) {
    const TensorInfo& info = checkpoint->tensors()[t];
    if (info.dtype != DType::kBF16) continue;
    const size_t at = words.size();
    words.resize(at + info.size_bytes);
    const Status read = checkpoint->read(t, 0, MutByteSpan(words).subspan(at));
    if (!read) must(Result<int>(read.error()));
  }
  const size_t once = words.size();
  words.reserve(bytes);
  while (once != 0 && words.size() < bytes)
    words.insert(words.end(), words.begin(),
                 words.begin() + static_cast<ptrdiff_t>(std::min(once, bytes - words.size())));
  return words;
}

struct Subject {
  std::string name;
  const Codec* codec = nullptr;  // null: chosen
  Effort effort = Effort::kDefault;
  std::vector<std::vector<std::byte>> sections;
};

std::vector<Subject> all_subjects(bool with_earlier) {
  std::vector<Subject> subjects;
  for (const Codec* codec : all_codecs())
    if (with_earlier || codec->need() != Need::kEarlierWords)
      subjects.push_back({std::string(codec->name()), codec, Effort::kDefault, {}});
  for (const Effort effort : kEfforts)
    subjects.push_back({std::string(effort_name(effort)), nullptr, effort, {}});
  return subjects;
}

class CodecsBench {
 public:
  // `earlier` may be empty.
  CodecsBench(std::vector<std::byte> old_words, std::vector<std::byte> new_words,
              std::vector<std::byte> earlier)
      : old_(std::move(old_words)),
        new_(std::move(new_words)),
        earlier_(std::move(earlier)),
        live_(old_) {}

  uint64_t encode(Subject* subject) {
    uint64_t bytes = 0;
    changed_ = 0;
    subject->sections.resize(tiles());
    for (uint64_t tile = 0; tile < tiles(); ++tile) {
      const ByteSpan was = span(old_, tile);
      const ByteSpan is = span(new_, tile);
      list_.clear(kWord);
      list_.append(is, was);
      std::vector<std::byte>& out = subject->sections[tile];
      out.clear();
      if (list_.changed() == 0) continue;
      TileChange change = tile_change(DType::kBF16, was, is, list_);
      change.earlier_words = earlier(tile);
      change.effort = subject->effort;
      const Status status =
          append_section(change, {0, change.elements, 0, 1}, {}, {}, subject->codec, &out);
      if (!status) must(Result<int>(status.error()));
      bytes += out.size();
      changed_ += list_.changed();
    }
    return bytes;
  }

  void decode(const Subject& subject) {
    for (uint64_t tile = 0; tile < tiles(); ++tile) {
      if (subject.sections[tile].empty()) continue;
      const MutByteSpan words =
          MutByteSpan(live_).subspan(tile * kTileBytes, span(live_, tile).size());
      const Section section = must(
          Section::open(subject.sections[tile], {words.size() / kWord, 1, kWord}, DType::kBF16));
      const uint64_t block_bytes = kWord << kDefaultLog2Block;
      const ByteSpan past = earlier(tile);
      for (uint64_t begin = 0, block = 0; begin < words.size(); begin += block_bytes, ++block)
        must(section.apply(
            block, words.subspan(begin, std::min(block_bytes, words.size() - begin)),
            past.empty() ? past : past.subspan(begin, std::min(block_bytes, past.size() - begin))));
    }
  }
  void restore() { std::memcpy(live_.data(), old_.data(), old_.size()); }
  bool exact() const { return live_ == new_; }
  void read() {
    g_sink = read_loops().back().two_streams(old_.data(), new_.data(), old_.size() / 512 * 512);
  }

  uint64_t changed() const { return changed_; }
  uint64_t bytes() const { return old_.size(); }

 private:
  uint64_t tiles() const { return ceil_div(old_.size(), kTileBytes); }
  static ByteSpan span(const std::vector<std::byte>& words, uint64_t tile) {
    const uint64_t begin = tile * kTileBytes;
    return ByteSpan(words).subspan(begin, std::min<uint64_t>(kTileBytes, words.size() - begin));
  }

  ByteSpan earlier(uint64_t tile) const {
    return earlier_.empty() ? ByteSpan() : span(earlier_, tile);
  }

  const std::vector<std::byte> old_;
  const std::vector<std::byte> new_;
  const std::vector<std::byte> earlier_;
  std::vector<std::byte> live_;
  ChangeList list_;
  uint64_t changed_ = 0;
};

int run(int argc, char** argv) {
  std::vector<const char*> paths;
  uint64_t mib = 256;
  unsigned rounds = 5;
  std::vector<std::string_view> only;
  const char* earlier = nullptr;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option.starts_with("--") && i + 1 < argc) {
      const char* value = argv[++i];
      if (option == "--mib") mib = std::strtoull(value, nullptr, 10);
      if (option == "--rounds") rounds = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
      if (option == "--codec") only.emplace_back(value);
      if (option == "--earlier") earlier = value;
    } else {
      paths.push_back(argv[i]);
    }
  }
  if (paths.size() != 2) {
    std::fprintf(stderr,
                 "usage: bench_codecs OLD NEW [--earlier FILE] [--mib N] [--rounds N] "
                 "[--codec NAME]...\n");
    return 2;
  }
  CodecsBench bench(bf16_words(paths[0], mib << 20), bf16_words(paths[1], mib << 20),
                    earlier == nullptr ? std::vector<std::byte>() : bf16_words(earlier, mib << 20));
  std::vector<Subject> subjects = all_subjects(earlier != nullptr);
  std::erase_if(subjects, [&only](const Subject& subject) {
    return !only.empty() && std::ranges::find(only, subject.name) == only.end();
  });
  Paired paired([&bench] { bench.read(); });
  std::vector<uint64_t> bytes;
  for (Subject& subject : subjects) {
    bytes.push_back(bench.encode(&subject));
    bench.restore();
    bench.decode(subject);
    if (!bench.exact()) must(Result<int>(Error{Code::kInternal, "decoded words differ"}));
    paired.add("encode", [&bench, &subject] { bench.encode(&subject); });
    paired.add(
        "decode", [&bench, &subject] { bench.decode(subject); }, [&bench] { bench.restore(); });
  }
  paired.run(rounds);
  const auto dense = static_cast<double>(bench.bytes());
  const auto changed = static_cast<double>(bench.changed());
  std::printf("%.0f MiB, %.3f %% changed\n", dense / 0x1p20, 100 * changed * kWord / dense);
  std::printf("%-11s %9s %12s %9s %12s %9s\n", "codec", "bits/chg", "encode GB/s", "of read",
              "decode GB/s", "of read");
  for (size_t i = 0; i < subjects.size(); ++i) {
    std::printf("%-11s %9.3f %12.2f %9.3f %12.2f %9.3f\n", subjects[i].name.c_str(),
                8.0 * static_cast<double>(bytes[i]) / changed, dense / paired.seconds(2 * i) / 1e9,
                paired.speed(2 * i), dense / paired.seconds(2 * i + 1) / 1e9,
                paired.speed(2 * i + 1));
  }
  return 0;
}

}  // namespace
}  // namespace siltstone::bench

int main(int argc, char** argv) {
  return siltstone::bench::run(argc, argv);
}
