// The parts of packs that a chain fetches for somebody who holds some of the tensors.
#include <algorithm>
#include <iterator>

#include "base/checksum.h"
#include "base/parallel.h"
#include "base/try.h"
#include "repo/chain.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

// Parts that are closer than this are fetched together: a request costs more than these bytes.
constexpr uint64_t kGapBytes = 2 * kChunkBytes;

}  // namespace

// Reads the tables of all packs that have some, and chooses what to fetch of these packs.
Status Chain::choose_parts(const ChainOptions& options) {
  here_.assign(tensors_.size(), 0);
  for (const size_t tensor : *options.here) here_[tensor] = 1;
  const unsigned transfers = store_->traits().transfers;
  const uint64_t head_bytes = options.memory_bytes / 2 / transfers;
  SILT_TRY(parallel_for(packs_.size(), transfers, [&](uint64_t i, unsigned) -> Status {
    Pack& pack = packs_[i];
    if (pack.object.prefix_sha256.empty() || pack.object.prefix_bytes > head_bytes) return {};
    return choose_parts(pack, options.memory_bytes / 2).in(links_[pack.link].name);
  }));
  for (const Pack& pack : packs_) links_[pack.link].whole &= pack.whole;
  return {};
}

// The chunks with bytes of the wanted entries, those next to each other together.
std::vector<Chain::Part> Chain::parts_of(std::span<const Entry> wanted, uint64_t data_begin,
                                         uint64_t data_end) {
  std::vector<Part> parts;
  for (const Entry& entry : wanted) {
    const uint64_t first = (entry.offset_bytes - data_begin) / kChunkBytes;
    const uint64_t last = ceil_div(entry.offset_bytes + entry.size_bytes - data_begin, kChunkBytes);
    const uint64_t begin = data_begin + first * kChunkBytes;
    const uint64_t end = std::min(data_begin + last * kChunkBytes, data_end);
    if (parts.empty() ||
        begin > parts.back().offset_bytes + parts.back().length_bytes + kGapBytes) {
      parts.push_back({begin, 0});
    }
    parts.back().length_bytes = end - parts.back().offset_bytes;
  }
  return parts;
}

Status Chain::choose_parts(Pack& pack, uint64_t limit_bytes) {
  std::vector<std::byte> head(pack.object.prefix_bytes);
  SILT_TRY(read_pack(pack, 0, head));
  SILT_ASSIGN(Entries found, entries(pack, head));
  const auto is_here = [this](const Entry& entry) { return here_[entry.tensor] != 0; };
  std::ranges::copy_if(found.all, std::back_inserter(pack.wanted), is_here);
  const uint64_t end = pack.object.length_bytes;
  pack.parts = parts_of(pack.wanted, found.data_begin, end);
  uint64_t bytes = 0;
  for (const Part& part : pack.parts) bytes += part.length_bytes;
  const bool provable = pack.parts.empty() || !found.chunks.empty();
  if (!provable || bytes > limit_bytes || bytes > end / 4 * 3) {
    pack.wanted = {};
    pack.parts = {};
    return {};
  }
  pack.whole = false;
  pack.data_begin = found.data_begin;
  pack.chunks = std::move(found.chunks);
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : found.all) {
    if (is_here(entry)) continue;
    elsewhere_[entry.tensor] += *entry.change;
    touched_[entry.tensor] = true;
  }
  return {};
}

// As many packs at once as fit in memory, those that are not kept too.
Status Chain::fetch_parts(const ChainOptions& options) {
  std::vector<Pack*> some;
  uint64_t bytes = 0;
  const auto flush = [&]() -> Status {
    Status status = fetch_parts(some, options);
    some.clear();
    bytes = 0;
    return status;
  };
  for (Pack& pack : packs_) {
    if (pack.whole) continue;
    if (bytes + pack.fetched_bytes() > options.memory_bytes / 2) SILT_TRY(flush());
    some.push_back(&pack);
    bytes += pack.fetched_bytes();
  }
  return flush();
}

Status Chain::fetch_parts(std::span<Pack* const> packs, const ChainOptions& options) {
  std::vector<std::pair<Pack*, Part*>> wanted;
  for (Pack* pack : packs) {
    SILT_TRY(arrive(pack->object.prefix_bytes, options));
    for (Part& part : pack->parts) wanted.emplace_back(pack, &part);
  }
  SILT_TRY(
      parallel_for(wanted.size(), store_->traits().transfers, [&](uint64_t i, unsigned) -> Status {
        const auto& [pack, part] = wanted[i];
        return fetch_part(*pack, *part, options).in(links_[pack->link].name);
      }));
  for (Pack* pack : packs) SILT_TRY(take(static_cast<size_t>(pack - packs_.data())));
  return {};
}

Status Chain::fetch_part(const Pack& pack, Part& part, const ChainOptions& options) const {
  std::vector<std::byte> bytes(part.length_bytes);
  SILT_TRY(read_pack(pack, part.offset_bytes, bytes));
  ChunkHashes hashes;
  hashes.update(bytes);
  size_t chunk = (part.offset_bytes - pack.data_begin) / kChunkBytes;
  for (const Sha256Digest& hash : hashes.finish()) {
    if (hash != pack.chunks[chunk]) {
      return Error{Code::kCorrupt, "object '" + pack.object.key + "' is damaged: chunk " +
                                       std::to_string(chunk) +
                                       " of its data has another SHA-256 than its header says"};
    }
    ++chunk;
  }
  part.bytes = std::move(bytes);
  return arrive(part.length_bytes, options);
}

}  // namespace siltstone
