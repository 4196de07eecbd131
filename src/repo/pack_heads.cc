#include "repo/pack_heads.h"

#include <algorithm>

#include "delta/section.h"

namespace siltstone {

PackHeads::PackHeads(const ObjectRef& object, uint64_t limit_bytes)
    : object_bytes_(object.length_bytes), limit_bytes_(limit_bytes) {
  if (object.prefix_bytes <= std::min(limit_bytes, object.length_bytes))
    wanted_ = object.prefix_bytes;
}

void PackHeads::take(ByteSpan piece) {
  while (wanted_ != 0 && !piece.empty()) {
    if (at_ < begin_) {
      const size_t skipped = std::min<uint64_t>(begin_ - at_, piece.size());
      at_ += skipped;
      piece = piece.subspan(skipped);
      continue;
    }
    const size_t count = std::min<uint64_t>(wanted_ - current_.size(), piece.size());
    current_.insert(current_.end(), piece.begin(), piece.begin() + count);
    at_ += count;
    piece = piece.subspan(count);
    while (wanted_ != 0 && current_.size() >= wanted_) {
      keep();
      if (!find_next()) wanted_ = 0;
    }
  }
}

void PackHeads::keep() {
  heads_.push_back({begin_, bytes_.size(), wanted_});
  bytes_.insert(bytes_.end(), current_.begin(), current_.begin() + wanted_);
}

// Behind the pack's header its first section; behind a section's header the next section, which may
// begin in what is gathered already.
bool PackHeads::find_next() {
  if (entries_.empty()) {
    Result<PackIndex> index = parse_pack_index(current_, object_bytes_);
    if (!index || index->entries.empty()) return false;
    entries_ = std::move(index->entries);
    std::ranges::sort(entries_, {}, &PackIndexEntry::offset_bytes);
    current_.clear();
    begin_ = entries_.front().offset_bytes;
    left_bytes_ = entries_.front().size_bytes;
  } else {
    const Result<SectionHeader> header = parse_section_header(ByteSpan(current_).first(wanted_));
    if (!header || header->section_bytes == 0 || header->section_bytes > left_bytes_) return false;
    const size_t used = std::min<uint64_t>(header->section_bytes, current_.size());
    current_.erase(current_.begin(), current_.begin() + used);
    begin_ += header->section_bytes;
    left_bytes_ -= header->section_bytes;
  }
  while (left_bytes_ == 0) {
    if (++entry_ == entries_.size()) return false;
    begin_ = entries_[entry_].offset_bytes;
    left_bytes_ = entries_[entry_].size_bytes;
  }
  wanted_ = std::min<uint64_t>(left_bytes_, kMaxSectionHeaderBytes);
  return begin_ + current_.size() >= at_ && bytes_.size() + wanted_ <= limit_bytes_;
}

ByteSpan PackHeads::find(uint64_t offset_bytes, uint64_t length_bytes) const {
  const auto found = std::ranges::lower_bound(heads_, offset_bytes, {}, &Head::offset_bytes);
  if (found == heads_.end() || found->offset_bytes != offset_bytes || found->length < length_bytes)
    return {};
  return ByteSpan(bytes_).subspan(found->begin, length_bytes);
}

}  // namespace siltstone
