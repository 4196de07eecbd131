#include "siltstone/inspect.h"

#include <fnmatch.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <mutex>

#include "base/files.h"
#include "base/parallel.h"
#include "base/try.h"
#include "delta/codecs/block_view.h"
#include "delta/codecs/class_layout.h"
#include "delta/kernels/word_steps.h"
#include "delta/pack.h"
#include "repo/base.h"
#include "repo/bucket.h"
#include "repo/objects.h"
#include "repo/progress.h"
#include "repo/state.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

bool wanted(const InspectOptions& options, const std::string& name) {
  return options.tensors.empty() || ::fnmatch(options.tensors.c_str(), name.c_str(), 0) == 0;
}

// Adds up headers.
class Uses {
 public:
  void add(const SectionHeader& header) {
    CodecUse& use = by_id_[header.codec];
    ++use.sections;
    use.section_bytes += header.section_bytes;
    use.elements += header.tile.elements();
    use.changed += header.changed;
  }
  std::vector<CodecUse> take() {
    std::vector<CodecUse> uses;
    for (auto& [id, use] : by_id_) {
      const Codec* codec = find_codec(id);
      use.codec = codec != nullptr ? codec->name() : "codec " + std::to_string(id);
      uses.push_back(std::move(use));
    }
    return uses;
  }

 private:
  std::map<uint16_t, CodecUse> by_id_;
};

// `elements` of the tensor, or 0: those of its tiles.
void add_tensor(const std::string& name, const std::vector<SectionHeader>& headers,
                uint64_t elements, Uses* all, Inspection* report) {
  TensorInspection tensor;
  tensor.name = name;
  tensor.dtype = headers.front().dtype;
  Uses uses;
  uint64_t covered = 0;
  for (const SectionHeader& header : headers) {
    uses.add(header);
    all->add(header);
    covered += header.tile.elements();
    tensor.changed += header.changed;
    tensor.section_bytes += header.section_bytes;
  }
  tensor.elements = elements != 0 ? elements : covered;
  tensor.codecs = uses.take();
  report->changed += tensor.changed;
  report->section_bytes += tensor.section_bytes;
  report->tensors.push_back(std::move(tensor));
}

Status finish(const InspectOptions& options, Uses* uses, Inspection* report) {
  if (report->tensors.empty() && !options.tensors.empty())
    return Error{Code::kInvalidArgument,
                 "no tensor that changed matches '" + options.tensors + "'"};
  report->codecs = uses->take();
  return {};
}

// Counts of one dtype, by exponent.
using Binades = std::vector<BinadeSteps>;

template <class W>
void count_steps(DType dtype, ByteSpan was, ByteSpan is, Binades* binades) {
  const ExponentField field = exponent_field(dtype);
  const WordRanks<W> ranks(dtype_info(dtype).order);
  for (size_t at = 0; at < was.size(); at += sizeof(W)) {
    const W from = load_le<W>(was.data() + at);
    const auto step = static_cast<W>(ranks.step(from, load_le<W>(is.data() + at)));
    BinadeSteps& binade = (*binades)[field.of(from)];
    ++binade.elements;
    if (step == 0) continue;
    const bool down = (step & WordRanks<W>::kTop) != 0;
    const W beyond = static_cast<W>((down ? W(W{0} - step) : step) - 1);  // 0 for one step
    ++binade.changed;
    ++binade.by_size[std::min<size_t>(std::bit_width(beyond), BinadeSteps::kSizes - 1)];
  }
}

Binades empty_binades(DType dtype) {
  const ExponentField field = exponent_field(dtype);
  const bool no_negative_zero = dtype == DType::kF8_E4M3FNUZ || dtype == DType::kF8_E5M2FNUZ;
  const int bias = static_cast<int>(field.exponents / 2) - (no_negative_zero ? 0 : 1);
  Binades binades(field.exponents);
  for (unsigned e = 0; e < field.exponents; ++e) {
    binades[e].dtype = dtype;
    binades[e].exponent = e;
    binades[e].power = static_cast<int>(std::max(e, 1U)) - bias;
  }
  return binades;
}

class StepCounts {
 public:
  void add(DType dtype, const Binades& counted) {
    const std::lock_guard lock(mutex_);
    Binades& sums = by_dtype_.try_emplace(dtype, empty_binades(dtype)).first->second;
    for (size_t e = 0; e < sums.size(); ++e) {
      sums[e].elements += counted[e].elements;
      sums[e].changed += counted[e].changed;
      for (size_t s = 0; s < BinadeSteps::kSizes; ++s) sums[e].by_size[s] += counted[e].by_size[s];
    }
  }
  // Those that hold any words.
  std::vector<BinadeSteps> take() const {
    std::vector<BinadeSteps> out;
    for (const auto& [dtype, binades] : by_dtype_)
      std::copy_if(binades.rbegin(), binades.rend(), std::back_inserter(out),
                   [](const BinadeSteps& binade) { return binade.elements != 0; });
    return out;
  }

 private:
  std::mutex mutex_;
  std::map<DType, Binades> by_dtype_;
};

// Steps of all words of the wanted tensors, changed or not.
Result<std::vector<BinadeSteps>> steps_between(Bucket& bucket, const Commit& from, const Commit& to,
                                               const Schema& schema,
                                               const InspectOptions& options) {
  const std::span<const TensorInfo> tensors = schema.tensors;
  const BaseOptions base_options{options.threads, uint64_t{1} << 30};
  SILT_ASSIGN(const Base old_base, base_from_bucket(bucket, from, tensors, true, base_options));
  SILT_ASSIGN(const Base new_base, base_from_bucket(bucket, to, tensors, true, base_options));
  const StateReader old_reader = old_base.reader(tensors);
  const StateReader new_reader = new_base.reader(tensors);
  std::vector<Stretch> work;
  uint64_t total = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!wanted(options, tensors[t].name)) continue;
    SILT_ASSIGN(const std::vector<Stretch> stretches,
                shared_stretches(old_reader, t, new_reader, t, UINT64_MAX));
    for (const Stretch& stretch : stretches) {
      work.push_back(stretch);
      total += stretch.length_bytes;
    }
  }
  StepCounts counts;
  std::atomic<uint64_t> done{0};
  SILT_TRY(parallel_for(work.size(), options.threads, [&](uint64_t i, unsigned) -> Status {
    thread_local std::vector<std::byte> was;
    thread_local std::vector<std::byte> is;
    const Stretch& stretch = work[i];
    const DType dtype = tensors[stretch.tensor].dtype;
    SILT_TRY(read_stretch(old_reader, stretch, &was));
    SILT_TRY(read_stretch(new_reader, stretch, &is));
    Binades binades = empty_binades(dtype);
    with_word_type(dtype_info(dtype).word_bytes,
                   [&](auto word) { count_steps<decltype(word)>(dtype, was, is, &binades); });
    counts.add(dtype, binades);
    const uint64_t now = done += stretch.length_bytes;
    return tell(options.progress, now, total);
  }));
  return counts.take();
}

}  // namespace

Result<Inspection> inspect(Repository& repository, const Version& version,
                           const InspectOptions& options) {
  Bucket& bucket = as_bucket(repository);
  SILT_ASSIGN(const Commit commit, bucket.history().read(version.id));
  const Artifact* delta = commit.find(ArtifactKind::kDelta);
  const Artifact* anchor = commit.find(ArtifactKind::kAnchor);
  const bool packed = delta == nullptr && anchor != nullptr && anchor->packed;
  if (packed) delta = anchor;
  if (delta == nullptr)
    return Error{Code::kInvalidArgument, version.id.name() + " has no delta: it is " +
                                             (commit.fence ? "a fence" : "a plain anchor")};
  if (packed && options.steps)
    return Error{Code::kInvalidArgument, version.id.name() + " is an anchor: no steps lead to it"};
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(commit.schema));
  const std::span<const TensorInfo> tensors = schema->tensors;
  SILT_ASSIGN(const std::unique_ptr<const Chain> chain,
              Chain::load(bucket.store(), packed ? std::vector<Commit>() : std::vector{commit},
                          tensors, {options.threads}, packed ? &commit : nullptr));
  Inspection report;
  SILT_ASSIGN(const std::vector<ObjectRef> objects, artifact_objects(*bucket.store(), *delta));
  for (const ObjectRef& object : objects) {
    ++report.packs;
    report.bytes += object.length_bytes;
    report.header_bytes += object.prefix_bytes;
  }
  Uses uses;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!wanted(options, tensors[t].name)) continue;
    const uint64_t elements = word_matrix(tensors[t]).words();
    report.elements += elements;
    std::vector<SectionHeader> headers;
    for (const Chain::Piece& piece : chain->pieces(t)) headers.push_back(piece.header);
    if (!headers.empty()) add_tensor(tensors[t].name, headers, elements, &uses, &report);
  }
  SILT_TRY(finish(options, &uses, &report));
  if (options.steps) {
    SILT_ASSIGN(const Commit parent, bucket.history().read(*commit.parent));
    SILT_ASSIGN(report.steps, steps_between(bucket, parent, commit, *schema, options));
  }
  return report;
}

Result<Inspection> inspect_pack(const std::filesystem::path& path, const InspectOptions& options) {
  if (options.steps)
    return Error{Code::kInvalidArgument,
                 "steps are counted from the state before, which a pack alone does not have: "
                 "name the bucket and the version"};
  SILT_ASSIGN(const File file, File::open_read(path));
  SILT_ASSIGN(const FileStat stat, file.stat());
  const uint64_t file_bytes = stat.size_bytes;
  std::vector<std::byte> prefix(std::min<uint64_t>(file_bytes, kLengthFieldBytes));
  SILT_TRY(file.read_at(0, prefix));
  SILT_ASSIGN(const uint64_t header_bytes, parse_length_field(prefix, file_bytes));
  prefix.resize(kLengthFieldBytes + header_bytes);
  SILT_TRY(file.read_at(0, prefix));
  SILT_ASSIGN(const PackIndex index, parse_pack_index(prefix, file_bytes));
  Inspection report;
  report.packs = 1;
  report.bytes = file_bytes;
  report.header_bytes = prefix.size();
  Uses uses;
  std::vector<std::byte> entry;
  for (const PackIndexEntry& place : index.entries) {
    if (!wanted(options, place.tensor)) continue;
    entry.resize(place.size_bytes);
    SILT_TRY(file.read_at(place.offset_bytes, entry));
    const std::string where = "tensor '" + place.tensor + "'";
    SILT_ASSIGN(const std::vector<ByteSpan> sections, split_sections(entry).in(where));
    std::vector<SectionHeader> headers;
    for (const ByteSpan section : sections) {
      SILT_ASSIGN(headers.emplace_back(), parse_section_header(section).in(where));
      if (headers.back().dtype != headers.front().dtype)
        return Error{Code::kCorrupt, where + ": its sections have different dtypes"};
    }
    if (headers.empty()) continue;
    add_tensor(place.tensor, headers, 0, &uses, &report);
    report.elements += report.tensors.back().elements;
  }
  SILT_TRY(finish(options, &uses, &report));
  std::ranges::sort(report.tensors, {}, &TensorInspection::name);
  return report;
}

}  // namespace siltstone
