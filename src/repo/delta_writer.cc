#include "repo/delta_writer.h"

#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/diff.h"
#include "delta/section.h"
#include "repo/progress.h"

namespace siltstone {
namespace {

// Per worker: old and new words of a tile and those before the old ones, positions and new words of
// its changes, its encoding, and the words of the base where they come over a network.
constexpr uint64_t kWorkerBytes = 8 * kTileBytes;

struct Encoded {
  std::vector<std::byte> sections;
  std::vector<std::byte> back;
  bool looks_back = false;
  uint64_t changed = 0;
  Sum128 before;  // of the base's own bytes
  Sum128 after;   // of the new state
};

// Buffers of one worker, kept from stretch to stretch.
struct Workspace {
  std::vector<std::byte> old_words;
  std::vector<std::byte> new_words;
  std::vector<std::byte> earlier_words;
  ChangeList changes;
};

// What the changes of the runs from `first_run` on add to the sum of their tensor; called while the
// words are in the cache. `old_words` starts with that run, at byte `offset_bytes` of the tensor.
Sum128 sum_of_changes(const ChangeList& changes, size_t first_run, ByteSpan old_words,
                      ByteSpan new_words, unsigned word_bytes, uint64_t offset_bytes) {
  // Above one change in a thousand words, hashing every word at memory speed is faster.
  constexpr uint64_t kSparse = kRunElements / 1024;
  const uint64_t run_bytes = kRunElements * word_bytes;
  Sum128 sum;
  uint64_t begin = first_run == 0 ? 0 : changes.run_ends()[first_run - 1];
  for (size_t run = first_run; run < changes.run_ends().size(); ++run) {
    const uint64_t end = changes.run_ends()[run];
    const uint64_t at = (run - first_run) * run_bytes;
    const uint64_t length = std::min<uint64_t>(run_bytes, old_words.size() - at);
    const ByteSpan was = old_words.subspan(at, length);
    const ByteSpan is = new_words.subspan(at, length);
    if (end - begin > kSparse) {
      sum += digest_bytes(is, offset_bytes + at) - digest_bytes(was, offset_bytes + at);
    } else if (end > begin) {
      sum += digest_change(was, is, changes.positions().subspan(begin, end - begin), word_bytes,
                           offset_bytes + at);
    }
    begin = end;
  }
  return sum;
}

class DeltaWriter {
 public:
  DeltaWriter(Store& store, Uploads& uploads, const StateReader& base, const StateBytes& base_bytes,
              const StateBytes& next, const DeltaOptions& options)
      : base_(base),
        base_bytes_(base_bytes),
        next_(next),
        options_(options),
        packs_(store, uploads, options.key_prefix, options.from_root, options.packs) {
    if (options.back != nullptr) back_.emplace(options.back);
  }

  Result<DeltaOutcome> run();

 private:
  Status plan();
  Status encode(const Stretch& stretch, Workspace& work, Encoded* out);
  Status encode_tile(const TensorInfo& info, const Tile& tile, ByteSpan old_words,
                     ByteSpan new_words, ByteSpan earlier_words, const Sum128& before,
                     const Sum128& change, Workspace& work, Encoded* out);
  Result<ByteSpan> compare(const Stretch& stretch, uint64_t at, ByteSpan was,
                           Workspace& work) const;
  Status collect(const Stretch& stretch, Encoded encoded);

  const StateReader& base_;
  const StateBytes& base_bytes_;
  const StateBytes& next_;
  const DeltaOptions& options_;
  std::vector<Stretch> stretches_;
  uint64_t total_bytes_ = 0;
  PackWriter packs_;
  std::optional<WayBackWriter> back_;
  DeltaOutcome outcome_;
};

Status DeltaWriter::plan() {
  for (size_t t = 0; t < base_.tensors().size(); ++t) {
    SILT_ASSIGN(const std::vector<Stretch> stretches,
                base_.stretches(t, options_.memory_bytes / 8));
    stretches_.insert(stretches_.end(), stretches.begin(), stretches.end());
    total_bytes_ += base_.tensors()[t].size_bytes;
  }
  return {};
}

// Lists what differs from `was` in the new words that stand at byte `at` of the stretch, and
// returns these words.
Result<ByteSpan> DeltaWriter::compare(const Stretch& stretch, uint64_t at, ByteSpan was,
                                      Workspace& work) const {
  const uint64_t offset_bytes = stretch.offset_bytes + at;
  const ByteSpan resident = next_.resident(stretch.tensor);
  if (!resident.empty()) {
    const ByteSpan is = resident.subspan(offset_bytes, was.size());
    work.changes.append(is, was);
    return is;
  }
  const MutByteSpan is = MutByteSpan(work.new_words).subspan(at, was.size());
  const ByteSpan masters = next_.masters(stretch.tensor);
  if (!masters.empty()) {
    work.changes.append_cast(masters.subspan(2 * offset_bytes, 2 * is.size()), was, is);
  } else {
    SILT_TRY(next_.read(stretch.tensor, offset_bytes, is));
    work.changes.append(is, was);
  }
  return ByteSpan(is);
}

// Reads both states block by block and compares each block while it is in the cache; the whole
// stretch stays in memory because encoders look at old words that did not change.
Status DeltaWriter::encode(const Stretch& stretch, Workspace& work, Encoded* out) {
  const TensorInfo& info = base_.tensors()[stretch.tensor];
  const WordMatrix matrix = word_matrix(info);
  const uint64_t length = stretch.length_bytes;
  const bool old_resident =
      !base_bytes_.resident(stretch.tensor).empty() && !base_.touches(stretch.tensor);
  if (!old_resident) work.old_words.resize(std::max<size_t>(work.old_words.size(), length));
  if (next_.resident(stretch.tensor).empty()) {
    work.new_words.resize(std::max<size_t>(work.new_words.size(), length));
  }
  work.changes.clear(matrix.word_bytes);
  StateReader::Cursor cursor(base_);
  SILT_TRY(cursor.begin(stretch));
  const std::byte* old_begin = nullptr;
  const std::byte* new_begin = nullptr;
  Sum128 change;
  for (uint64_t at = 0; !cursor.done();) {
    const uint64_t count = cursor.next_bytes();
    const MutByteSpan scratch =
        old_resident ? MutByteSpan() : MutByteSpan(work.old_words).subspan(at, count);
    SILT_ASSIGN(const ByteSpan was, cursor.next(scratch));
    const size_t first_run = work.changes.run_ends().size();
    SILT_ASSIGN(const ByteSpan is, compare(stretch, at, was, work));
    if (at == 0) {
      old_begin = was.data();
      new_begin = is.data();
    }
    change += sum_of_changes(work.changes, first_run, was, is, matrix.word_bytes,
                             stretch.offset_bytes + at);
    at += count;
  }
  SILT_TRY(cursor.finish());
  out->before = cursor.before();
  out->after = cursor.after();
  const ByteSpan old_words(old_begin, length);
  const ByteSpan new_words(new_begin, length);
  const bool looks_back = options_.earlier != nullptr && work.changes.changed() != 0;
  if (looks_back) SILT_TRY(read_stretch(*options_.earlier, stretch, &work.earlier_words));
  const ByteSpan earlier = looks_back ? ByteSpan(work.earlier_words) : ByteSpan();
  const std::vector<Tile> tiles = default_tiles(matrix);
  const uint64_t row_bytes = matrix.cols * matrix.word_bytes;
  const auto first = std::lower_bound(tiles.begin(), tiles.end(), stretch.offset_bytes,
                                      [row_bytes](const Tile& tile, uint64_t offset) {
                                        return tile.row_begin * row_bytes < offset;
                                      });
  if (first->rows * row_bytes == length) {
    return encode_tile(info, *first, old_words, new_words, earlier, cursor.after(), change, work,
                       out);
  }
  // The stretch is a whole tensor, read so because of another grid: it is cut into our own tiles.
  for (const Tile& tile : tiles) {
    const uint64_t begin = tile.row_begin * row_bytes;
    const ByteSpan was = old_words.subspan(begin, tile.rows * row_bytes);
    const ByteSpan is = new_words.subspan(begin, tile.rows * row_bytes);
    work.changes.clear(matrix.word_bytes);
    work.changes.append(is, was);
    const Sum128 before = digest_bytes(was, begin);
    const ByteSpan past = looks_back ? earlier.subspan(begin, tile.rows * row_bytes) : earlier;
    SILT_TRY(encode_tile(info, tile, was, is, past, before, digest_bytes(is, begin) - before, work,
                         out));
  }
  return {};
}

Status DeltaWriter::encode_tile(const TensorInfo& info, const Tile& tile, ByteSpan old_words,
                                ByteSpan new_words, ByteSpan earlier_words, const Sum128& before,
                                const Sum128& change, Workspace& work, Encoded* out) {
  const ChangeList& changes = work.changes;
  if (changes.changed() == 0) return {};
  TileChange coded = tile_change(info.dtype, old_words, new_words, changes);
  coded.effort = options_.effort;
  coded.earlier_words = earlier_words;
  const std::string where = "tensor '" + info.name + "'";
  const bool can_be_forced = options_.codec == nullptr || !earlier_words.empty() ||
                             options_.codec->need() != Need::kEarlierWords;
  const Codec* const codec = can_be_forced ? options_.codec : nullptr;
  const size_t start = out->sections.size();
  SILT_TRY(append_section(coded, tile, before, before + change, codec, &out->sections).in(where));
  SILT_ASSIGN(const SectionHeader header,
              parse_section_header(ByteSpan(out->sections).subspan(start)));
  out->looks_back |= header.need == Need::kEarlierWords;
  if (options_.back != nullptr)
    SILT_TRY(append_way_back(coded, tile, before, before + change, &out->back).in(where));
  out->after += change;
  out->changed += changes.changed();
  return {};
}

Status DeltaWriter::collect(const Stretch& stretch, Encoded encoded) {
  outcome_.sums_before[stretch.tensor] += encoded.before;
  outcome_.sums_after[stretch.tensor] += encoded.after;
  outcome_.looks_back |= encoded.looks_back;
  if (encoded.changed == 0) return {};
  const std::string& name = base_.tensors()[stretch.tensor].name;
  if (back_) back_->add(name, std::move(encoded.back), encoded.changed);
  return packs_.add(name, std::move(encoded.sections), encoded.changed);
}

Result<DeltaOutcome> DeltaWriter::run() {
  SILT_TRY(plan());
  outcome_.sums_before.resize(base_.tensors().size());
  outcome_.sums_after.resize(base_.tensors().size());
  const unsigned threads =
      workers_within(base_.transfers(), options_.threads, options_.memory_bytes / 2, kWorkerBytes);
  std::vector<Workspace> workspaces(threads);
  std::atomic<uint64_t> done{0};
  for (size_t begin = 0; begin < stretches_.size();) {
    size_t end = begin;
    uint64_t batch = 0;
    do {
      batch += stretches_[end++].length_bytes;
    } while (end < stretches_.size() &&
             batch + stretches_[end].length_bytes <= options_.batch_bytes);
    std::vector<Encoded> encoded(end - begin);
    SILT_TRY(parallel_for(encoded.size(), threads, [&](uint64_t i, unsigned worker) -> Status {
      SILT_TRY(encode(stretches_[begin + i], workspaces[worker], &encoded[i]));
      const uint64_t now = done += stretches_[begin + i].length_bytes;
      return tell(options_.progress, now, total_bytes_);
    }));
    for (size_t i = 0; i < encoded.size(); ++i) {
      SILT_TRY(collect(stretches_[begin + i], std::move(encoded[i])));
    }
    begin = end;
  }
  SILT_ASSIGN(outcome_.artifact, packs_.finish());
  outcome_.artifact.from_root = options_.from_root;
  outcome_.bytes_written = outcome_.artifact.bytes;
  if (back_) {
    Result<WayBack> back = back_->finish("", options_.from_root);
    if (back) outcome_.back = *std::move(back);
  }
  return std::move(outcome_);
}

}  // namespace

Result<DeltaOutcome> write_delta(Store& store, Uploads& uploads, const StateReader& base,
                                 const StateBytes& base_bytes, const StateBytes& next,
                                 const DeltaOptions& options) {
  return DeltaWriter(store, uploads, base, base_bytes, next, options).run();
}

}  // namespace siltstone
