#include "repo/rebuild.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/parallel.h"
#include "base/try.h"
#include "repo/anchor_pass.h"
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

class Rebuilder {
 public:
  Rebuilder(const StateReader& reader, const RebuildOptions& options, const BlockSink& sink)
      : reader_(reader),
        options_(options),
        sink_(sink),
        before_(reader.tensors().size()),
        after_(reader.tensors().size()) {}

  Result<Rebuilt> run(const std::vector<size_t>& tensors);

 private:
  bool passes() const {
    return options_.anchor != nullptr &&
           (options_.prove_anchor || !options_.anchor->store().traits().local);
  }
  Status rebuild_some(const std::vector<size_t>& tensors);
  Status plan(const std::vector<size_t>& tensors);
  Status rebuild_planned();
  Status rebuild_run(size_t number, unsigned worker);
  Status rebuild_stretch(const Stretch& stretch, ByteSpan words, unsigned worker);

  const StateReader& reader_;
  const RebuildOptions& options_;
  const BlockSink& sink_;
  std::vector<Stretch> work_;
  std::unique_ptr<AnchorPass> pass_;  // where the base is read run by run
  SumTable before_;
  SumTable after_;
  std::vector<std::vector<std::byte>> scratch_;  // of workers
  std::vector<LastChange> last_changes_;
};

Status Rebuilder::plan(const std::vector<size_t>& tensors) {
  uint64_t largest = 0;
  work_.clear();
  for (const size_t tensor : tensors) {
    SILT_ASSIGN(const std::vector<Stretch> stretches,
                reader_.stretches(tensor, options_.memory_bytes / 4));
    for (const Stretch& stretch : stretches) {
      largest = std::max(largest, stretch.length_bytes);
      work_.push_back(stretch);
    }
  }
  // Words, those before the last link, those of the version before that codecs look at, and what a
  // pass has read.
  const bool reads_runs = passes() && options_.anchor->store().traits().local;
  const uint64_t run = reads_runs ? std::max(largest, kTileBytes) : 0;
  const unsigned threads = workers_within(reader_.transfers(passes()), options_.threads,
                                          options_.memory_bytes / 2, 4 * largest + run);
  scratch_.resize(threads);
  last_changes_.resize(threads);
  if (!passes()) return {};
  SILT_ASSIGN(pass_,
              AnchorPass::begin(*options_.anchor, work_,
                                {threads, options_.memory_bytes / 4, options_.prove_anchor}));
  return {};
}

Status Rebuilder::rebuild_stretch(const Stretch& stretch, ByteSpan words, unsigned worker) {
  StateReader::Cursor cursor(reader_);
  if (options_.on_link) {
    cursor.on_link = [&](size_t link, const Sum128& change) {
      options_.on_link(link, stretch.tensor, change);
    };
  }
  LastChange& last = last_changes_[worker];
  const bool keeps_last = options_.back != nullptr && reader_.touches(stretch.tensor);
  if (keeps_last) cursor.keep_last_change();
  last.clear();
  SILT_TRY(cursor.begin(stretch, words));
  std::vector<std::byte>& scratch = scratch_[worker];
  for (uint64_t offset = stretch.offset_bytes; !cursor.done();) {
    const uint64_t length = cursor.next_bytes();
    if (scratch.size() < length) scratch.resize(length);
    SILT_ASSIGN(const ByteSpan block, cursor.next(scratch));
    SILT_TRY(sink_(stretch.tensor, offset, block, cursor.changed()));
    if (keeps_last) last.add(block, cursor.before_last_link());
    offset += length;
    if (options_.meter != nullptr) SILT_TRY(options_.meter->add(length));
  }
  SILT_TRY(cursor.finish());
  if (last.changed) last.write(reader_.tensors()[stretch.tensor], stretch, options_.back);
  before_.add(stretch.tensor, cursor.before());
  after_.add(stretch.tensor, cursor.after());
  return {};
}

Status Rebuilder::rebuild_run(size_t number, unsigned worker) {
  const AnchorPass::Run& run = pass_->run(number);
  SILT_ASSIGN(const std::optional<ByteSpan> words, pass_->read(number, worker));
  if (!words) return {};  // another worker has failed
  uint64_t at = 0;
  for (const Stretch& stretch : run.stretches) {
    SILT_TRY(rebuild_stretch(stretch, words->subspan(at, stretch.length_bytes), worker));
    at += stretch.length_bytes;
  }
  pass_->release(number);
  return {};
}

Status Rebuilder::rebuild_planned() {
  const auto threads = static_cast<unsigned>(scratch_.size());
  if (pass_ == nullptr) {
    return parallel_for(work_.size(), threads, [this](uint64_t i, unsigned worker) {
      return rebuild_stretch(work_[i], {}, worker);
    });
  }
  return parallel_for(pass_->size(), threads, [this](uint64_t i, unsigned worker) {
    Status status;
    try {
      status = rebuild_run(i, worker);
    } catch (...) {
      pass_->stop();
      throw;
    }
    if (!status) pass_->stop();
    return status;
  });
}

Status Rebuilder::rebuild_some(const std::vector<size_t>& tensors) {
  SILT_TRY(plan(tensors));
  Status status = rebuild_planned();
  // Words that do not fit the chain are noticed before the objects that they come from are read to
  // their end; which object is damaged is more than that.
  const bool damaged =
      !status && (status.error().code == Code::kMismatch || status.error().code == Code::kCorrupt);
  if (damaged) SILT_TRY(reader_.arrived(reader_.tensors().size()));
  if (damaged && options_.prove_anchor)
    SILT_TRY(options_.anchor->prove({options_.threads, options_.memory_bytes / 4}));
  return status;
}

Result<Rebuilt> Rebuilder::run(const std::vector<size_t>& tensors) {
  std::vector<bool> wanted(reader_.tensors().size());
  for (const size_t tensor : tensors) wanted[tensor] = true;
  std::vector<size_t> here;
  for (size_t known = 0;;) {
    SILT_ASSIGN(const std::vector<size_t> more, reader_.arrived(known));
    std::ranges::copy_if(more, std::back_inserter(here), [&](size_t t) { return wanted[t]; });
    known += more.size();
    // An anchor is read in the order in which it lies, which only all stretches together show.
    if (passes() && !more.empty()) continue;
    if (!here.empty()) SILT_TRY(rebuild_some(here));
    here.clear();
    if (more.empty()) break;
  }
  Rebuilt rebuilt;
  for (size_t t = 0; t < reader_.tensors().size(); ++t) {
    rebuilt.before.push_back(before_[t]);
    rebuilt.after.push_back(after_[t]);
  }
  return rebuilt;
}

}  // namespace

Result<Rebuilt> rebuild(const StateReader& reader, const std::vector<size_t>& tensors,
                        const RebuildOptions& options, const BlockSink& sink) {
  return Rebuilder(reader, options, sink).run(tensors);
}

Result<ProvenVersion> rebuild_version(Bucket& bucket, const Commit& commit, const Schema& schema,
                                      const RebuildOptions& given, const BlockSink& sink) {
  RebuildOptions options = given;
  SILT_ASSIGN(const Base base, base_from_bucket(bucket, commit, schema.tensors, /*prove=*/false,
                                                {.threads = options.threads,
                                                 .memory_bytes = options.memory_bytes,
                                                 .meter = options.meter,
                                                 .overlap = true}));
  options.anchor = base.anchor;
  options.prove_anchor = base.anchor != nullptr;
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
