#include "delta/pack.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/try.h"
#include "delta/section.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

constexpr uint64_t kDataAlignment = 64;
constexpr std::string_view kSumsKey = "siltstone.sums";
constexpr std::string_view kChunksKey = "siltstone.chunks";
constexpr size_t kSumDigits = 32;
constexpr size_t kChunkDigits = 64;

Error corrupt(const std::string& problem) {
  return {Code::kCorrupt, "pack: " + problem};
}

// The value of a metadata key; nullptr if there is none.
const std::string* find_value(const std::vector<std::pair<std::string, std::string>>& metadata,
                              std::string_view key) {
  const auto found = std::ranges::find(metadata, key, &std::pair<std::string, std::string>::first);
  return found == metadata.end() ? nullptr : &found->second;
}

Status check_metadata(const std::vector<std::pair<std::string, std::string>>& metadata) {
  const std::string* format = find_value(metadata, "siltstone.format");
  if (format == nullptr) return corrupt("no siltstone.format in its metadata");
  if (*format != "1")
    return Error{Code::kUnsupported, "pack: format \"" + *format + "\", this program reads \"1\""};
  const std::string* kind = find_value(metadata, "siltstone.kind");
  if (kind == nullptr || *kind != "delta")
    return corrupt("siltstone.kind is " + (kind == nullptr ? "absent" : "\"" + *kind + "\"") +
                   ", expected \"delta\"");
  if (find_value(metadata, "siltstone.from") == nullptr)
    return corrupt("no siltstone.from in its metadata");
  return {};
}

Status check_entry(const SafetensorsEntry& entry) {
  const TensorInfo& info = entry.info;
  const auto refuse = [&info](const std::string& problem) {
    return corrupt("entry \"" + info.name + "\" " + problem);
  };
  if (info.dtype != DType::kU8 || info.shape.size() != 1)
    return refuse("is " + std::string(dtype_info(info.dtype).name) + " of rank " +
                  std::to_string(info.shape.size()) + ", expected U8 of rank 1");
  if (info.size_bytes == 0) return refuse("is empty");
  if (info.size_bytes % kSectionAlignment != 0)
    return refuse("has " + std::to_string(info.size_bytes) + " bytes, no multiple of 4");
  return {};
}

// What the sections of an entry together add to their tensor's sum.
Result<Sum128> change_of(ByteSpan entry) {
  Sum128 change;
  SILT_ASSIGN(const std::vector<ByteSpan> sections, split_sections(entry));
  for (const ByteSpan section : sections) {
    SILT_ASSIGN(const SectionHeader header, parse_section_header(section));
    change += header.change();
  }
  return change;
}

Status parse_sums(std::string_view digits, PackIndex* index) {
  if (digits.size() % kSumDigits != 0 || digits.size() / kSumDigits != index->entries.size())
    return corrupt(std::string(kSumsKey) + " does not tell one sum per entry");
  for (; !digits.empty(); digits.remove_prefix(kSumDigits)) {
    if (!sum_from_hex(digits.substr(0, kSumDigits), &index->sums.emplace_back()))
      return corrupt(std::string(kSumsKey) + " is not hexadecimal");
  }
  return {};
}

Status parse_chunks(std::string_view digits, uint64_t data_bytes, PackIndex* index) {
  if (digits.size() % kChunkDigits != 0 ||
      digits.size() / kChunkDigits != ceil_div(data_bytes, kChunkBytes))
    return corrupt(std::string(kChunksKey) + " does not tell one SHA-256 per chunk");
  for (; !digits.empty(); digits.remove_prefix(kChunkDigits)) {
    if (!from_hex(digits.substr(0, kChunkDigits), index->chunks.emplace_back()))
      return corrupt(std::string(kChunksKey) + " is not hexadecimal");
  }
  return {};
}

// No hashes without sums.
Status parse_tables(uint64_t data_bytes, PackIndex* index) {
  const std::string* sums = find_value(index->metadata, kSumsKey);
  const std::string* chunks = find_value(index->metadata, kChunksKey);
  if (sums == nullptr && chunks != nullptr)
    return corrupt(std::string(kChunksKey) + " without " + std::string(kSumsKey));
  if (sums != nullptr) SILT_TRY(parse_sums(*sums, index));
  return chunks != nullptr ? parse_chunks(*chunks, data_bytes, index) : Status();
}

}  // namespace

void ChunkHashes::update(ByteSpan piece) {
  const size_t skipped = std::min<uint64_t>(skipped_bytes_, piece.size());
  skipped_bytes_ -= skipped;
  piece = piece.subspan(skipped);
  while (!piece.empty()) {
    const size_t count = std::min<uint64_t>(piece.size(), kChunkBytes - in_chunk_);
    hash_.update(piece.first(count));
    piece = piece.subspan(count);
    in_chunk_ += count;
    if (in_chunk_ < kChunkBytes) continue;
    done_.push_back(std::exchange(hash_, Sha256()).finish());
    in_chunk_ = 0;
  }
}

std::vector<Sha256Digest> ChunkHashes::finish() {
  if (in_chunk_ > 0) done_.push_back(hash_.finish());
  return std::move(done_);
}

Result<std::vector<std::pair<std::string, std::string>>> pack_tables(
    const std::vector<PackEntry>& entries, bool chunks) {
  std::string sums;
  ChunkHashes hashes;
  for (const PackEntry& entry : entries) {
    SILT_ASSIGN(const Sum128 change, change_of(entry.sections));
    sums += to_hex(change);
    if (chunks) hashes.update(entry.sections);
  }
  std::vector<std::pair<std::string, std::string>> tables;
  tables.emplace_back(kSumsKey, std::move(sums));
  if (!chunks) return tables;
  std::string& text = tables.emplace_back(kChunksKey, "").second;
  for (const Sha256Digest& hash : hashes.finish()) text += to_hex(hash);
  return tables;
}

std::string pack_prefix(const std::vector<PackEntry>& entries,
                        const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::vector<TensorInfo> tensors;
  tensors.reserve(entries.size());
  for (const PackEntry& entry : entries) {
    const uint64_t size_bytes = entry.sections.size();
    tensors.push_back({entry.tensor, DType::kU8, {static_cast<int64_t>(size_bytes)}, size_bytes});
  }
  return make_safetensors_prefix(tensors, metadata, kDataAlignment);
}

Result<PackIndex> parse_pack_index(ByteSpan prefix, uint64_t object_bytes) {
  if (prefix.size() < kLengthFieldBytes)
    return corrupt(std::to_string(prefix.size()) + " bytes, its length field alone takes 8");
  SILT_ASSIGN(const uint64_t header_bytes,
              parse_length_field(prefix.first(kLengthFieldBytes), object_bytes).in("pack"));
  const uint64_t data_begin = kLengthFieldBytes + header_bytes;
  if (prefix.size() < data_begin)
    return corrupt("header of " + std::to_string(header_bytes) + " bytes, only " +
                   std::to_string(prefix.size() - kLengthFieldBytes) + " given");
  if (data_begin % kDataAlignment != 0)
    return corrupt("data start at byte " + std::to_string(data_begin) + ", no multiple of 64");
  const std::string_view json = as_text(prefix.subspan(kLengthFieldBytes, header_bytes));
  SILT_ASSIGN(SafetensorsHeader header,
              parse_safetensors_header(json, object_bytes - data_begin).in("pack"));
  SILT_TRY(check_metadata(header.metadata));
  PackIndex index;
  index.metadata = std::move(header.metadata);
  index.entries.reserve(header.entries.size());
  for (SafetensorsEntry& entry : header.entries) {
    SILT_TRY(check_entry(entry));
    index.entries.push_back(
        {std::move(entry.info.name), data_begin + entry.offset_bytes, entry.info.size_bytes});
  }
  index.data_begin = data_begin;
  SILT_TRY(parse_tables(object_bytes - data_begin, &index));
  return index;
}

}  // namespace siltstone
