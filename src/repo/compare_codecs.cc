// Codecs side by side on the tiles that publishing would cut.
#include "repo/compare_codecs.h"

#include <fnmatch.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/try.h"
#include "delta/diff.h"
#include "delta/grid.h"
#include "delta/section.h"
#include "repo/progress.h"

namespace siltstone {
namespace {

// Tiles are taken so many bytes at a time: more than caches hold, so that each pass reads its words
// from memory.
constexpr uint64_t kBatchBytes = uint64_t{64} << 20;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A tile of a tensor that both checkpoints have.
struct Piece {
  const TensorInfo* info;
  size_t from;  // the tensor's index on each side
  size_t to;
  std::optional<size_t> earlier;
  Tile tile;
  uint64_t offset_bytes;  // in the tensor
  uint64_t length_bytes;
};

// One row of the comparison.
struct Subject {
  Coding coding;
  CodecResult result;
  std::vector<double> encode_seconds;  // per round
  std::vector<double> decode_seconds;
  std::map<uint16_t, uint64_t> sections_by_id;
  std::set<const TensorInfo*> refused;
};

class Comparison {
 public:
  Comparison(const Checkpoint& from, const Checkpoint& to, const CompareCodecsOptions& options)
      : from_(from), to_(to), options_(options) {}

  Status plan();
  Result<CodecComparison> run(const std::vector<Coding>& codings);

 private:
  struct Placed {
    Piece piece;
    uint64_t at;  // in the buffers
  };

  void add_tensor(size_t from, size_t to);
  std::optional<size_t> find_earlier(const TensorInfo& info) const;
  Status load(size_t first);
  ByteSpan earlier_words(const Placed& placed) const {
    if (!placed.piece.earlier) return {};
    return ByteSpan(earlier_).subspan(placed.at, placed.piece.length_bytes);
  }
  Status measure(Subject* subject);
  Status encode(Subject* subject);
  Status append(Subject* subject, const Piece& piece, const TileChange& change,
                std::vector<std::byte>* out);
  Status decode(Subject* subject);
  Status check(Subject* subject, bool count);
  void finish(Subject* subject);

  const Checkpoint& from_;
  const Checkpoint& to_;
  const CompareCodecsOptions& options_;
  CodecComparison report_;
  std::vector<Piece> pieces_;
  // Of one batch.
  std::vector<Placed> batch_;
  std::vector<std::byte> old_;
  std::vector<std::byte> new_;
  std::vector<std::byte> earlier_;
  std::vector<std::byte> live_;
  std::vector<std::vector<std::byte>> sections_;  // parallel to batch_; empty: no change
  uint64_t batch_changed_ = 0;
  ChangeList changes_;
};

void Comparison::add_tensor(size_t from, size_t to) {
  const TensorInfo& info = to_.tensors()[to];
  const WordMatrix matrix = word_matrix(info);
  const uint64_t row_bytes = matrix.cols * matrix.word_bytes;
  for (const Tile& tile : default_tiles(matrix))
    pieces_.push_back({&info, from, to, find_earlier(info), tile, tile.row_begin * row_bytes,
                       tile.rows * row_bytes});
  ++report_.tensors;
  report_.dense_bytes += info.size_bytes;
  report_.elements += matrix.words();
}

std::optional<size_t> Comparison::find_earlier(const TensorInfo& info) const {
  if (options_.earlier == nullptr) return std::nullopt;
  const std::span<const TensorInfo> tensors = options_.earlier->tensors();
  const auto found = std::ranges::lower_bound(tensors, info.name, {}, &TensorInfo::name);
  if (found == tensors.end() || *found != info) return std::nullopt;
  return static_cast<size_t>(found - tensors.begin());
}

Status Comparison::plan() {
  const auto wanted = [&](const TensorInfo& info) {
    return options_.tensors.empty() ||
           ::fnmatch(options_.tensors.c_str(), info.name.c_str(), 0) == 0;
  };
  const auto a = from_.tensors();
  const auto b = to_.tensors();
  size_t i = 0;
  size_t j = 0;
  bool matched = false;
  while (i < a.size() || j < b.size()) {
    const bool a_first = j == b.size() || (i < a.size() && a[i].name < b[j].name);
    const bool b_first = !a_first && (i == a.size() || b[j].name < a[i].name);
    const TensorInfo& info = a_first ? a[i] : b[j];
    if (wanted(info)) {
      matched = true;
      if (!a_first && !b_first && a[i] == b[j]) {
        add_tensor(i, j);
      } else {
        report_.left_out.push_back(info.name);
      }
    }
    if (!b_first) ++i;
    if (!a_first) ++j;
  }
  if (!matched && !options_.tensors.empty())
    return Error{Code::kInvalidArgument, "no tensor matches '" + options_.tensors + "'"};
  if (report_.tensors == 0)
    return Error{Code::kInvalidArgument,
                 "no tensor has the same name, dtype and shape in both checkpoints"};
  return {};
}

// Reads the pieces from `first` on, at least one, as many as fit.
Status Comparison::load(size_t first) {
  batch_.clear();
  uint64_t bytes = 0;
  for (size_t i = first; i < pieces_.size(); ++i) {
    const uint64_t more = align_up(pieces_[i].length_bytes, 64);
    if (!batch_.empty() && bytes + more > kBatchBytes) break;
    batch_.push_back({pieces_[i], bytes});
    bytes += more;
  }
  old_.resize(bytes);
  new_.resize(bytes);
  live_.resize(bytes);
  if (options_.earlier != nullptr) earlier_.resize(bytes);
  if (sections_.size() < batch_.size()) sections_.resize(batch_.size());
  for (const auto& [piece, at] : batch_) {
    SILT_TRY(from_.read(piece.from, piece.offset_bytes,
                        MutByteSpan(old_).subspan(at, piece.length_bytes)));
    SILT_TRY(
        to_.read(piece.to, piece.offset_bytes, MutByteSpan(new_).subspan(at, piece.length_bytes)));
    if (piece.earlier)
      SILT_TRY(options_.earlier->read(*piece.earlier, piece.offset_bytes,
                                      MutByteSpan(earlier_).subspan(at, piece.length_bytes)));
  }
  return {};
}

Status Comparison::append(Subject* subject, const Piece& piece, const TileChange& change,
                          std::vector<std::byte>* out) {
  const Codec* codec = subject->coding.codec;
  Status done = append_section(change, piece.tile, {}, {}, codec, out);
  if (done || codec == nullptr || done.error().code != Code::kUnsupported)
    return std::move(done).in("tensor '" + piece.info->name + "'");
  subject->refused.insert(piece.info);
  return append_section(change, piece.tile, {}, {}, nullptr, out);
}

Status Comparison::encode(Subject* subject) {
  batch_changed_ = 0;
  for (size_t i = 0; i < batch_.size(); ++i) {
    const auto& [piece, at] = batch_[i];
    const ByteSpan was = ByteSpan(old_).subspan(at, piece.length_bytes);
    const ByteSpan is = ByteSpan(new_).subspan(at, piece.length_bytes);
    sections_[i].clear();
    changes_.clear(dtype_info(piece.info->dtype).word_bytes);
    changes_.append(is, was);
    if (changes_.changed() == 0) continue;
    batch_changed_ += changes_.changed();
    TileChange change = tile_change(piece.info->dtype, was, is, changes_);
    change.effort = subject->coding.effort;
    change.earlier_words = earlier_words(batch_[i]);
    SILT_TRY(append(subject, piece, change, &sections_[i]));
  }
  return {};
}

Status Comparison::decode(Subject* subject) {
  for (size_t i = 0; i < batch_.size(); ++i) {
    if (sections_[i].empty()) continue;
    const auto& [piece, at] = batch_[i];
    const std::string where =
        "codec '" + subject->result.name + "', tensor '" + piece.info->name + "'";
    const MutByteSpan words = MutByteSpan(live_).subspan(at, piece.length_bytes);
    const ByteSpan earlier = earlier_words(batch_[i]);
    SILT_ASSIGN(const Section section,
                Section::open(sections_[i], word_matrix(*piece.info), piece.info->dtype).in(where));
    const SectionHeader& header = section.header();
    const uint64_t block_bytes = uint64_t{dtype_info(header.dtype).word_bytes} << header.log2_block;
    uint64_t changed = 0;
    for (uint64_t block = 0; block < header.blocks(); ++block) {
      const uint64_t begin = block * block_bytes;
      const uint64_t length = std::min(block_bytes, words.size() - begin);
      SILT_ASSIGN(const uint64_t count,
                  section
                      .apply(block, words.subspan(begin, length),
                             earlier.empty() ? earlier : earlier.subspan(begin, length))
                      .in(where));
      changed += count;
    }
    if (changed != header.changed)
      return Error{Code::kInternal, where + ": " + std::to_string(changed) + " words changed, " +
                                        std::to_string(header.changed) + " expected"};
  }
  return {};
}

// Whether the decoded words are the new ones; counts the sections if told.
Status Comparison::check(Subject* subject, bool count) {
  for (size_t i = 0; i < batch_.size(); ++i) {
    const auto& [piece, at] = batch_[i];
    if (std::memcmp(live_.data() + at, new_.data() + at, piece.length_bytes) != 0)
      return Error{Code::kInternal, "codec '" + subject->result.name + "', tensor '" +
                                        piece.info->name + "': decoded to other words"};
    if (!count || sections_[i].empty()) continue;
    SILT_ASSIGN(const SectionHeader header, parse_section_header(sections_[i]));
    ++subject->sections_by_id[header.codec];
    ++subject->result.sections;
    subject->result.section_bytes += sections_[i].size();
  }
  return {};
}

Status Comparison::measure(Subject* subject) {
  for (unsigned round = 0; round < options_.rounds; ++round) {
    std::memcpy(live_.data(), old_.data(), old_.size());
    const double begin = thread_seconds();
    SILT_TRY(encode(subject));
    const double encoded = thread_seconds();
    SILT_TRY(decode(subject));
    const double decoded = thread_seconds();
    subject->encode_seconds[round] += encoded - begin;
    subject->decode_seconds[round] += decoded - encoded;
    SILT_TRY(check(subject, round == 0));
  }
  return {};
}

void Comparison::finish(Subject* subject) {
  CodecResult& result = subject->result;
  result.encode_seconds = median(subject->encode_seconds);
  result.decode_seconds = median(subject->decode_seconds);
  result.refused_tensors = subject->refused.size();
  for (const auto& [id, sections] : subject->sections_by_id)
    result.sections_by_codec.emplace_back(find_codec(id)->name(), sections);
  report_.results.push_back(std::move(result));
}

Result<CodecComparison> Comparison::run(const std::vector<Coding>& codings) {
  std::vector<Subject> subjects;
  for (const Coding& coding : codings) {
    Subject subject;
    subject.coding = coding;
    subject.result.name = coding.name;
    subject.encode_seconds.resize(options_.rounds);
    subject.decode_seconds.resize(options_.rounds);
    subjects.push_back(std::move(subject));
  }
  uint64_t done = 0;
  for (size_t first = 0; first < pieces_.size(); first += batch_.size()) {
    SILT_TRY(load(first));
    for (Subject& subject : subjects) SILT_TRY(measure(&subject));
    report_.changed_elements += batch_changed_;
    for (const Placed& placed : batch_) done += placed.piece.length_bytes;
    SILT_TRY(tell(options_.progress, done, report_.dense_bytes));
  }
  SILT_TRY(from_.check_unchanged());
  SILT_TRY(to_.check_unchanged());
  if (options_.earlier != nullptr) SILT_TRY(options_.earlier->check_unchanged());
  for (Subject& subject : subjects) finish(&subject);
  return std::move(report_);
}

}  // namespace

Result<CodecComparison> compare_codecs(const Checkpoint& from, const Checkpoint& to,
                                       const std::vector<Coding>& codings,
                                       const CompareCodecsOptions& options) {
  if (options.rounds == 0)
    return Error{Code::kInvalidArgument, "a comparison takes at least one round"};
  Comparison comparison(from, to, options);
  SILT_TRY(comparison.plan());
  return comparison.run(codings);
}

Result<CodecComparison> compare_codecs(const Checkpoint& from, const Checkpoint& to,
                                       const CompareCodecsOptions& options) {
  std::vector<Coding> all;
  for (const Codec* codec : all_codecs())
    if (codec->need() != Need::kEarlierWords || options.earlier != nullptr)
      all.push_back({codec->name(), codec});
  for (const Effort effort : kEfforts) all.push_back({effort_name(effort), nullptr, effort});
  if (options.codecs.empty()) return compare_codecs(from, to, all, options);
  std::vector<Coding> codings;
  for (const std::string& name : options.codecs) {
    const auto found = std::ranges::find(all, name, &Coding::name);
    if (found == all.end() && find_codec(name) != nullptr)
      return Error{Code::kInvalidArgument,
                   "codec " + name + " needs the checkpoint before the first one"};
    if (found == all.end()) {
      std::string problem = "there is no codec or effort '" + name + "'; there are";
      for (const Coding& coding : all) problem.append(" ").append(coding.name);
      return Error{Code::kInvalidArgument, std::move(problem)};
    }
    codings.push_back(*found);
  }
  return compare_codecs(from, to, codings, options);
}

}  // namespace siltstone
