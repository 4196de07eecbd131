#include "repo/rebuild.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "base/parallel.h"
#include "base/try.h"
#include "repo/bucket.h"
#include "repo/progress.h"

namespace siltstone {

std::vector<FilePlace> file_places(const Schema& schema) {
  std::vector<FilePlace> places(schema.tensors.size());
  for (size_t f = 0; f < schema.files.size(); ++f) {
    for (const WeightFile::Entry& entry : schema.files[f].entries) {
      places[entry.tensor] = {f, entry.offset_bytes};
    }
  }
  return places;
}

namespace {

// A stretch before and after the chain's last link.
struct LastChange {
  std::vector<std::byte> before;
  std::vector<std::byte> after;
  bool changed = false;

  void clear() {
    before.clear();
    after.clear();
    changed = false;
  }
  // `was` is empty where the link changed nothing.
  void add(ByteSpan words, ByteSpan was) {
    const ByteSpan old = was.empty() ? words : was;
    before.insert(before.end(), old.begin(), old.end());
    after.insert(after.end(), words.begin(), words.end());
    changed = changed || !was.empty();
  }
  void write(const TensorInfo& info, const Stretch& stretch, WayBackWriter* back) const {
    const WordMatrix matrix = word_matrix(info);
    const uint64_t row_bytes = matrix.cols * matrix.word_bytes;
    for (const Tile& tile : default_tiles(matrix)) {
      const uint64_t begin = tile.row_begin * row_bytes;
      const uint64_t length = tile.rows * row_bytes;
      if (begin < stretch.offset_bytes ||
          begin + length > stretch.offset_bytes + stretch.length_bytes)
        continue;
      back->add(info, tile, ByteSpan(before).subspan(begin - stretch.offset_bytes, length),
                ByteSpan(after).subspan(begin - stretch.offset_bytes, length));
    }
  }
};

}  // namespace

Result<Rebuilt> rebuild(const StateReader& reader, const std::vector<size_t>& tensors,
                        const RebuildOptions& options, const BlockSink& sink) {
  std::vector<Stretch> work;
  uint64_t total = 0;
  uint64_t largest = 0;
  for (const size_t tensor : tensors) {
    SILT_ASSIGN(const std::vector<Stretch> stretches,
                reader.stretches(tensor, options.memory_bytes / 4));
    for (const Stretch& stretch : stretches) {
      total += stretch.length_bytes;
      largest = std::max(largest, stretch.length_bytes);
      work.push_back(stretch);
    }
  }
  const size_t count = reader.tensors().size();
  SumTable before(count);
  SumTable after(count);
  std::atomic<uint64_t> done{0};
  // Words, those before the last link, and those of the version before that codecs look at.
  const unsigned threads = threads_within(options.threads, options.memory_bytes / 2, 4 * largest);
  std::vector<std::vector<std::byte>> scratch(threads);
  std::vector<LastChange> last_changes(threads);
  SILT_TRY(parallel_for(work.size(), threads, [&](uint64_t i, unsigned worker) -> Status {
    const Stretch& stretch = work[i];
    StateReader::Cursor cursor(reader);
    if (options.on_link) {
      cursor.on_link = [&](size_t link, const Sum128& change) {
        options.on_link(link, stretch.tensor, change);
      };
    }
    LastChange& last = last_changes[worker];
    const bool keeps_last = options.back != nullptr && reader.touches(stretch.tensor);
    if (keeps_last) cursor.keep_last_change();
    last.clear();
    SILT_TRY(cursor.begin(stretch));
    for (uint64_t offset = stretch.offset_bytes; !cursor.done();) {
      const uint64_t length = cursor.next_bytes();
      if (scratch[worker].size() < length) scratch[worker].resize(length);
      SILT_ASSIGN(const ByteSpan words, cursor.next(scratch[worker]));
      SILT_TRY(sink(stretch.tensor, offset, words, cursor.changed()));
      if (keeps_last) last.add(words, cursor.before_last_link());
      offset += length;
      const uint64_t now = done += length;
      SILT_TRY(tell(options.progress, now, total));
    }
    SILT_TRY(cursor.finish());
    if (last.changed) last.write(reader.tensors()[stretch.tensor], stretch, options.back);
    before.add(stretch.tensor, cursor.before());
    after.add(stretch.tensor, cursor.after());
    return {};
  }));
  Rebuilt rebuilt;
  for (size_t t = 0; t < count; ++t) {
    rebuilt.before.push_back(before[t]);
    rebuilt.after.push_back(after[t]);
  }
  return rebuilt;
}

Result<ProvenVersion> rebuild_version(Bucket& bucket, const Commit& commit, const Schema& schema,
                                      const RebuildOptions& options, const BlockSink& sink) {
  SILT_ASSIGN(const Base base, base_from_bucket(bucket, commit, schema.tensors, /*prove=*/true,
                                                {options.threads, options.memory_bytes}));
  std::vector<size_t> all(schema.tensors.size());
  std::iota(all.begin(), all.end(), size_t{0});
  SILT_ASSIGN(Rebuilt rebuilt, rebuild(base.reader(schema.tensors), all, options, sink));
  for (size_t t = 0; t < schema.tensors.size(); ++t) {
    if (rebuilt.before[t] == base.sums[t]) continue;
    return Error{Code::kCorrupt, base.description + ": tensor '" + schema.tensors[t].name +
                                     "' does not have the sum it should have"};
  }
  if (state_root(state_rows(schema.tensors, rebuilt.after)) != commit.root) {
    return Error{Code::kCorrupt, "what was rebuilt is not " + commit.id.name()};
  }
  return ProvenVersion{std::move(rebuilt.after), base.fetched_bytes};
}

}  // namespace siltstone
