#include "replica/changes.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/try.h"
#include "siltstone/codec.h"

namespace siltstone {
namespace {

constexpr uint64_t kMagic = 0x3153474E'41484353;  // "SCHANGS1"
constexpr uint64_t kMaxRootBytes = 256;
constexpr size_t kHeaderBytes = 2 * sizeof(uint64_t);

Error corrupt(const std::string& what) {
  return {Code::kCorrupt, "these are not the changes of a staged version: " + what};
}

// All parts begin at multiples of 8 bytes.
class Writer {
 public:
  void number(uint64_t value) { append(&value, sizeof value); }
  void bytes(ByteSpan bytes) {
    append(bytes.data(), bytes.size());
    out_.resize(align_up(out_.size(), 8));
  }
  void text(const std::string& text) {
    number(text.size());
    bytes(as_bytes(text));
  }
  void reserve(uint64_t size) { out_.reserve(size); }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  void append(const void* from, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    out_.insert(out_.end(), bytes, bytes + size);
  }
  std::vector<std::byte> out_;
};

class Reader {
 public:
  explicit Reader(ByteSpan bytes) : bytes_(bytes) {}

  Result<uint64_t> number() {
    SILT_ASSIGN(const ByteSpan bytes, take(1, sizeof(uint64_t)));
    return load_le<uint64_t>(bytes.data());
  }
  Result<ByteSpan> take(uint64_t count, uint64_t each) {
    uint64_t size = 0;
    if (!checked_mul(count, each, &size) || size > bytes_.size())
      return corrupt("they are cut off");
    const ByteSpan taken = bytes_.first(size);
    bytes_ = bytes_.subspan(std::min<uint64_t>(align_up(size, 8), bytes_.size()));
    return taken;
  }
  Result<std::string> text() {
    SILT_ASSIGN(const uint64_t size, number());
    if (size > kMaxRootBytes) return corrupt("a root is too long");
    SILT_ASSIGN(const ByteSpan bytes, take(size, 1));
    return std::string(as_text(bytes));
  }
  bool done() const { return bytes_.empty(); }

 private:
  ByteSpan bytes_;
};

template <class T>
ByteSpan bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// Which tensor lies at an address.
class Finder {
 public:
  explicit Finder(std::span<const Placement> places) : places_(places) {
    for (size_t t = 0; t < places.size(); ++t) {
      if (!places[t].resident().empty()) by_address_.emplace_back(places[t].resident().data(), t);
    }
    std::ranges::sort(by_address_);
  }
  // REQUIRES: the address is inside one of them.
  size_t find(const std::byte* address) const {
    return std::prev(std::ranges::upper_bound(by_address_, address, {}, &Entry::first))->second;
  }
  const std::byte* begin_of(size_t tensor) const { return places_[tensor].resident().data(); }

 private:
  using Entry = std::pair<const std::byte*, size_t>;
  std::span<const Placement> places_;
  std::vector<Entry> by_address_;
};

}  // namespace

Result<std::vector<std::byte>> pack_changes(const ChangedRoots& roots,
                                            std::span<const Overwrite> overwrites,
                                            std::span<const Placement> places) {
  for (const Placement& place : places) {
    if (place.resident().empty() && !place.parts().empty())
      return Error{Code::kUnsupported, "a tensor of this replica does not lie as in a checkpoint"};
  }
  const Finder finder(places);
  Writer writer;
  uint64_t size = 4 * kMaxRootBytes;
  for (const Overwrite& overwrite : overwrites) size += overwrite.memory_bytes() + 64;
  writer.reserve(size);
  writer.number(kMagic);
  writer.number(0);  // the checksum of what follows
  writer.text(roots.from);
  writer.text(roots.to);
  writer.number(overwrites.size());
  for (const Overwrite& overwrite : overwrites) {
    const size_t tensor = finder.find(overwrite.base);
    writer.number(tensor);
    writer.number(static_cast<uint64_t>(overwrite.base - finder.begin_of(tensor)));
    writer.number(overwrite.word_bytes);
    writer.number(overwrite.run_ends.size());
    writer.number(overwrite.positions.size());
    writer.bytes(bytes_of(overwrite.run_ends));
    writer.bytes(bytes_of(overwrite.positions));
    writer.bytes(overwrite.words);
  }
  std::vector<std::byte> bytes = writer.take();
  store_le(bytes.data() + sizeof kMagic, xxh64(ByteSpan(bytes).subspan(kHeaderBytes)));
  return bytes;
}

Result<PackedChanges> PackedChanges::open(ByteSpan bytes) {
  Reader reader(bytes);
  PackedChanges packed;
  SILT_ASSIGN(const uint64_t magic, reader.number());
  if (magic != kMagic) return corrupt("they begin with something else");
  SILT_ASSIGN(const uint64_t checksum, reader.number());
  if (checksum != xxh64(bytes.subspan(kHeaderBytes))) return corrupt("their checksum is wrong");
  SILT_ASSIGN(packed.roots_.from, reader.text());
  SILT_ASSIGN(packed.roots_.to, reader.text());
  SILT_ASSIGN(const uint64_t count, reader.number());
  for (uint64_t i = 0; i < count; ++i) {
    Record record;
    SILT_ASSIGN(record.tensor, reader.number());
    SILT_ASSIGN(record.offset_bytes, reader.number());
    SILT_ASSIGN(record.word_bytes, reader.number());
    SILT_ASSIGN(const uint64_t runs, reader.number());
    SILT_ASSIGN(const uint64_t changed, reader.number());
    SILT_ASSIGN(record.run_ends, reader.take(runs, sizeof(uint64_t)));
    SILT_ASSIGN(record.positions, reader.take(changed, sizeof(uint16_t)));
    SILT_ASSIGN(record.words, reader.take(changed, record.word_bytes));
    packed.records_.push_back(record);
  }
  if (!reader.done()) return corrupt("there is more than they have records of");
  return packed;
}

Result<StretchChanges> PackedChanges::read(size_t i, unsigned word_bytes, uint64_t words,
                                           Scratch* scratch) const {
  const Record& record = records_[i];
  const uint64_t first = record.offset_bytes / word_bytes;
  std::vector<uint64_t>& ends = scratch->run_ends;
  std::vector<uint16_t>& positions = scratch->positions;
  ends.resize(record.run_ends.size() / sizeof(uint64_t));
  positions.resize(record.positions.size() / sizeof(uint16_t));
  std::ranges::copy(record.run_ends, std::as_writable_bytes(std::span(ends)).begin());
  std::ranges::copy(record.positions, std::as_writable_bytes(std::span(positions)).begin());
  if (record.word_bytes != word_bytes || record.offset_bytes % word_bytes != 0)
    return corrupt("words of another size");
  const bool counted = ends.empty() ? positions.empty() : ends.back() == positions.size();
  if (!counted || !std::ranges::is_sorted(ends)) return corrupt("runs that do not follow another");
  // A run that another follows has no place behind that one's first.
  const uint64_t before = ends.empty() ? 0 : ends.size() - 1;
  uint64_t last = 0;
  bool inside = checked_mul(before, kRunElements, &last) && checked_add(first, last, &last) &&
                (ends.empty() || last < words);
  for (uint64_t at = before == 0 ? 0 : ends[before - 1]; inside && at < positions.size(); ++at)
    inside = positions[at] < words - last;
  if (!inside) return corrupt("a place outside its tensor");
  return StretchChanges{record.offset_bytes, positions, ends, record.words};
}

}  // namespace siltstone
