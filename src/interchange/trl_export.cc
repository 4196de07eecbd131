#include <array>
#include <atomic>
#include <charconv>

#include "base/json.h"
#include "base/parallel.h"
#include "base/try.h"
#include "interchange/foreign_files.h"
#include "interchange/sink.h"
#include "interchange/trl.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxElements = uint64_t{1} << 31;  // positions are int32 where they are applied

enum class Encoding { kGaps, kRaw, kIndices };

// The change of one tensor as it will be written.
struct Change {
  std::vector<std::byte> positions;
  DType positions_dtype = DType::kI32;
  std::vector<std::byte> values;
  uint64_t count = 0;
};

template <class Word>
void put_positions(const ChangeList& changes, bool gaps, std::vector<std::byte>* out) {
  out->resize(changes.changed() * sizeof(Word));
  std::byte* to = out->data();
  uint64_t next = 0;
  each_position(changes, [&](uint64_t position) {
    store_le(to, static_cast<Word>(position - (gaps ? next : 0)));
    to += sizeof(Word);
    next = position + 1;
  });
}

void encode(const ChangeList& changes, Encoding encoding, Change* out) {
  out->count = changes.changed();
  out->values.assign(changes.words().begin(), changes.words().end());
  if (encoding != Encoding::kGaps) return put_positions<uint32_t>(changes, false, &out->positions);
  uint64_t next = 0;
  uint64_t widest = 0;
  each_position(changes, [&](uint64_t position) {
    widest = std::max(widest, position - next);
    next = position + 1;
  });
  out->positions_dtype = widest <= UINT16_MAX ? DType::kU16 : DType::kU32;
  if (widest <= UINT16_MAX) return put_positions<uint16_t>(changes, true, &out->positions);
  put_positions<uint32_t>(changes, true, &out->positions);
}

std::string show_fraction(double value) {
  std::array<char, 64> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed).ptr;
  return {text.data(), end};
}

class TrlSink final : public Sink {
 public:
  TrlSink(fs::path folder, Encoding encoding, unsigned threads)
      : folder_(std::move(folder)), encoding_(encoding), threads_(threads) {}

  Result<std::optional<std::string>> root_of(uint64_t number) const override;
  Status write_full(const Version& version, const StateOf& state, ExportedVersion* out) override;
  Result<bool> write_delta(const Version& version, const Version& before, ModelState* old,
                           const ModelState& next, ExportedVersion* out) override;

 private:
  using Header = std::vector<std::pair<std::string, std::string>>;
  struct Totals {
    uint64_t tensors = 0;
    uint64_t changed = 0;
    uint64_t elements = 0;
  };
  std::string suffix(bool positions) const {
    if (encoding_ == Encoding::kIndices) return positions ? ".indices" : ".values";
    return positions ? ".idx" : ".val";
  }
  Header header(const Version& version, bool sparse, const Totals& totals) const;
  bool can_express(const TensorInfo& tensor) const;
  Status write(const std::string& name, std::vector<Piece> pieces, const Header& header,
               ExportedVersion* out) const;

  fs::path folder_;
  Encoding encoding_;
  unsigned threads_;
};

Result<std::optional<std::string>> TrlSink::root_of(uint64_t number) const {
  for (const bool anchor : {true, false}) {
    Result<ForeignFile> file = open_foreign(folder_ / trl_name(number, anchor));
    if (!file && file.error().code == Code::kNotFound) continue;
    if (!file) return std::move(file).error();
    return std::optional(file->metadata[std::string(kRootKey)]);
  }
  return std::optional<std::string>();
}

TrlSink::Header TrlSink::header(const Version& version, bool sparse, const Totals& totals) const {
  const double share = totals.elements == 0 ? 0
                                            : static_cast<double>(totals.changed) /
                                                  static_cast<double>(totals.elements);
  Header out = {{"format", std::string(kTrlFormat)},
                {"version", "1"},
                {"sparse", sparse ? "True" : "False"},
                {"model_version", std::to_string(version.id.seq)},
                {"num_changed_params", std::to_string(totals.tensors)},
                {"total_changed_elements", std::to_string(totals.changed)},
                {"total_elements", std::to_string(totals.elements)},
                {"sparsity", show_fraction(1 - share)},
                {std::string(kVersionKey), version.id.name()},
                {std::string(kRootKey), version.root}};
  if (encoding_ != Encoding::kIndices) {
    out.emplace_back("encoding", encoding_ == Encoding::kGaps ? kTrlGaps : kTrlRaw);
  }
  return out;
}

Status TrlSink::write(const std::string& name, std::vector<Piece> pieces, const Header& header,
                      ExportedVersion* out) const {
  const fs::path path = folder_ / name;
  SILT_TRY(make_directories(path.parent_path()));
  const Building building(path);
  SILT_ASSIGN(out->bytes_written, write_safetensors(building.path(), std::move(pieces), header));
  out->path = name;
  return install_new(building.path(), path);
}

Status TrlSink::write_full(const Version& version, const StateOf& state, ExportedVersion* out) {
  SILT_ASSIGN(const ModelState* model, state());
  std::vector<Piece> pieces;
  for (size_t i = 0; i < model->tensors().size(); ++i)
    pieces.push_back({model->tensors()[i], model->resident(i)});
  const uint64_t elements = model->total_elements();
  out->full = true;
  out->changed_elements = 0;
  const Totals totals = {pieces.size(), elements, elements};
  return write(trl_name(version.id.seq, /*anchor=*/true), std::move(pieces),
               header(version, /*sparse=*/false, totals), out);
}

bool TrlSink::can_express(const TensorInfo& tensor) const {
  const DTypeInfo& dtype = dtype_info(tensor.dtype);
  return dtype.bits == 8 * dtype.word_bytes &&
         tensor.size_bytes / dtype.word_bytes <= kMaxElements &&
         tensor.name.size() + suffix(true).size() <= kMaxNameBytes;
}

Result<bool> TrlSink::write_delta(const Version& version, const Version& before, ModelState* old,
                                  const ModelState& next, ExportedVersion* out) {
  const std::span<const TensorInfo> tensors = next.tensors();
  std::vector<Change> changes(tensors.size());
  std::atomic<bool> expressible = true;
  SILT_TRY(parallel_for(tensors.size(), threads_, [&](uint64_t i, unsigned) -> Status {
    ChangeList list(dtype_info(tensors[i].dtype).word_bytes);
    list.append_refresh(next.resident(i), old->bytes(i));
    if (list.changed() == 0) return {};
    if (!can_express(tensors[i])) {
      expressible = false;
    } else {
      encode(list, encoding_, &changes[i]);
    }
    return {};
  }));
  if (!expressible) return false;
  Totals totals = {0, 0, next.total_elements()};
  std::vector<Piece> pieces;
  Json names = Json::array();
  const auto add = [&](std::string name, DType dtype, uint64_t count, ByteSpan bytes) {
    pieces.push_back(
        {{std::move(name), dtype, {static_cast<int64_t>(count)}, bytes.size()}, bytes});
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Change& change = changes[i];
    if (change.count == 0) continue;
    add(tensors[i].name + suffix(true), change.positions_dtype, change.count, change.positions);
    add(tensors[i].name + suffix(false), tensors[i].dtype, change.count, change.values);
    names.push_back(tensors[i].name);
    ++totals.tensors;
    totals.changed += change.count;
  }
  Header header = this->header(version, /*sparse=*/true, totals);
  header.emplace_back("prev_model_version", std::to_string(before.id.seq));
  constexpr std::array<std::byte, 4> kNothing = {};
  if (encoding_ == Encoding::kIndices) {
    header.emplace_back("changed_params", names.dump());
    if (pieces.empty()) add(std::string(kTrlEmptyDelta), DType::kI32, 1, kNothing);
  }
  out->full = false;
  out->changed_elements = totals.changed;
  SILT_TRY(write(trl_name(version.id.seq, /*anchor=*/false), std::move(pieces), header, out));
  return true;
}

}  // namespace

Result<std::unique_ptr<Sink>> make_trl_sink(const fs::path& folder, const ExportOptions& options) {
  Encoding encoding = Encoding::kGaps;
  if (options.encoding == kTrlRaw) {
    encoding = Encoding::kRaw;
  } else if (options.encoding == "indices") {
    encoding = Encoding::kIndices;
  } else if (!options.encoding.empty() && options.encoding != kTrlGaps) {
    return Error{Code::kInvalidArgument, "trl has no encoding '" + options.encoding +
                                             "'; there are gap_delta, raw and indices"};
  }
  return std::unique_ptr<Sink>(std::make_unique<TrlSink>(folder, encoding, options.threads));
}

}  // namespace siltstone
