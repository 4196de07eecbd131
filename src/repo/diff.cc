// What differs between two states: two versions, or two checkpoints.
#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/try.h"
#include "delta/diff.h"
#include "repo/base.h"
#include "repo/bucket.h"
#include "repo/progress.h"
#include "repo/state.h"

namespace siltstone {
namespace {

// One side of a comparison.
struct Side {
  std::span<const TensorInfo> tensors;
  const StateBytes* bytes;
  const Chain* chain;
};

struct Pair {
  size_t from;
  size_t to;
};

uint64_t elements_of(const TensorInfo& info) {
  return word_matrix(info).words();
}

// Tensors that both sides have with the same dtype and shape; the others go into the report.
std::vector<Pair> match(const Side& from, const Side& to, DiffReport* report) {
  std::vector<Pair> pairs;
  size_t i = 0;
  size_t j = 0;
  while (i < from.tensors.size() || j < to.tensors.size()) {
    const bool a_left = i < from.tensors.size();
    const bool b_left = j < to.tensors.size();
    if (a_left && (!b_left || from.tensors[i].name < to.tensors[j].name)) {
      const TensorInfo& a = from.tensors[i++];
      report->tensors.push_back({a.name, "removed", elements_of(a), elements_of(a)});
    } else if (!a_left || to.tensors[j].name < from.tensors[i].name) {
      const TensorInfo& b = to.tensors[j++];
      report->tensors.push_back({b.name, "added", elements_of(b), elements_of(b)});
    } else {
      const TensorInfo& b = to.tensors[j];
      if (from.tensors[i] == b) {
        pairs.push_back({i, j});
      } else {
        report->tensors.push_back({b.name, "retyped", elements_of(b), elements_of(b)});
      }
      ++i;
      ++j;
    }
  }
  return pairs;
}

Result<DiffReport> compare(const Side& from, const Side& to, const DiffOptions& options) {
  DiffReport report;
  const std::vector<Pair> pairs = match(from, to, &report);
  const StateReader from_reader(from.tensors, *from.bytes, from.chain);
  const StateReader to_reader(to.tensors, *to.bytes, to.chain);
  struct Work {
    size_t pair;
    Stretch stretch;
  };
  std::vector<Work> work;
  uint64_t total = 0;
  for (size_t p = 0; p < pairs.size(); ++p) {
    SILT_ASSIGN(const std::vector<Stretch> stretches,
                shared_stretches(from_reader, pairs[p].from, to_reader, pairs[p].to, UINT64_MAX));
    for (const Stretch& stretch : stretches) {
      work.push_back({p, stretch});
      total += stretch.length_bytes;
    }
  }
  std::vector<std::atomic<uint64_t>> changed(pairs.size());
  std::atomic<uint64_t> done{0};
  SILT_TRY(parallel_for(work.size(), options.threads, [&](uint64_t i, unsigned) -> Status {
    thread_local std::vector<std::byte> was;
    thread_local std::vector<std::byte> is;
    thread_local ChangeList changes;
    const Pair& pair = pairs[work[i].pair];
    Stretch stretch = work[i].stretch;
    stretch.tensor = pair.from;
    SILT_TRY(read_stretch(from_reader, stretch, &was));
    stretch.tensor = pair.to;
    SILT_TRY(read_stretch(to_reader, stretch, &is));
    changes.clear(word_matrix(to.tensors[pair.to]).word_bytes);
    changes.append(is, was);
    changed[work[i].pair] += changes.changed();
    const uint64_t now = done += stretch.length_bytes;
    return tell(options.progress, now, total);
  }));
  for (size_t p = 0; p < pairs.size(); ++p) {
    if (changed[p] == 0) continue;
    const TensorInfo& info = to.tensors[pairs[p].to];
    report.tensors.push_back({info.name, "changed", elements_of(info), changed[p]});
  }
  std::sort(report.tensors.begin(), report.tensors.end(),
            [](const TensorDiff& x, const TensorDiff& y) { return x.name < y.name; });
  for (const TensorInfo& info : to.tensors) report.total_elements += elements_of(info);
  for (const TensorDiff& tensor : report.tensors)
    report.changed_elements += tensor.changed_elements;
  return report;
}

}  // namespace

Result<DiffReport> Bucket::diff(const Version& from, const Version& to,
                                const DiffOptions& options) {
  SILT_ASSIGN(const Commit a, history_.read(from.id));
  SILT_ASSIGN(const Commit b, history_.read(to.id));
  SILT_ASSIGN(const std::shared_ptr<const Schema> a_schema, history_.schema(a.schema));
  SILT_ASSIGN(const std::shared_ptr<const Schema> b_schema, history_.schema(b.schema));
  const BaseOptions base_options{options.threads, uint64_t{1} << 30};
  SILT_ASSIGN(const Base a_base, base_from_bucket(*this, a, a_schema->tensors, true, base_options));
  SILT_ASSIGN(const Base b_base, base_from_bucket(*this, b, b_schema->tensors, true, base_options));
  SILT_ASSIGN(DiffReport report,
              compare({a_schema->tensors, a_base.bytes.get(), a_base.chain.get()},
                      {b_schema->tensors, b_base.bytes.get(), b_base.chain.get()}, options));
  report.from_root = a.root;
  report.to_root = b.root;
  return report;
}

Result<DiffReport> diff_checkpoints(const Checkpoint& from, const Checkpoint& to,
                                    const DiffOptions& options) {
  const CheckpointBytes a(from);
  const CheckpointBytes b(to);
  SILT_ASSIGN(DiffReport report,
              compare({from.tensors(), &a, nullptr}, {to.tensors(), &b, nullptr}, options));
  SILT_ASSIGN(const std::vector<Sum128> a_sums, sum_all(from.tensors(), a, options.threads));
  SILT_ASSIGN(const std::vector<Sum128> b_sums, sum_all(to.tensors(), b, options.threads));
  report.from_root = state_root(state_rows(from.tensors(), a_sums));
  report.to_root = state_root(state_rows(to.tensors(), b_sums));
  return report;
}

}  // namespace siltstone
