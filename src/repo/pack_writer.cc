#include "repo/pack_writer.h"

#include <cstring>
#include <memory>
#include <optional>

#include "base/checksum.h"
#include "base/try.h"
#include "delta/pack.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

// A pack on its way.
struct Pack {
  std::string prefix;
  std::vector<PackEntry> entries;
  std::optional<PiecesSource> source;  // of these two
};

}  // namespace

// strverscmp ends at a zero byte, which names may have.
bool InNumberOrder::operator()(const std::string& x, const std::string& y) const {
  const int order = strverscmp(x.c_str(), y.c_str());
  return order != 0 ? order < 0 : x < y;
}

Status PackWriter::add(const std::string& tensor, std::vector<std::byte> sections,
                       uint64_t changed_elements) {
  artifact_.changed_elements += changed_elements;
  artifact_.section_bytes += sections.size();
  gathered_bytes_ += sections.size();
  std::vector<std::byte>& entry = pack_[tensor];
  if (entry.empty()) {
    entry = std::move(sections);
  } else {
    entry.insert(entry.end(), sections.begin(), sections.end());
  }
  return gathered_bytes_ >= options_.pack_bytes ? flush() : Status();
}

Status PackWriter::flush() {
  if (pack_.empty()) return {};
  auto pack = std::make_shared<Pack>();
  for (auto& [tensor, sections] : pack_) pack->entries.push_back({tensor, std::move(sections)});
  pack_.clear();
  std::vector<std::pair<std::string, std::string>> metadata = {
      {"siltstone.format", "1"}, {"siltstone.kind", "delta"}, {"siltstone.from", from_root_}};
  const bool tables = gathered_bytes_ >= options_.tables_from_bytes;
  if (tables) {
    SILT_ASSIGN(const auto found, pack_tables(pack->entries, options_.chunks));
    metadata.insert(metadata.end(), found.begin(), found.end());
  }
  gathered_bytes_ = 0;
  pack->prefix = pack_prefix(pack->entries, metadata);
  ObjectRef object;
  object.key = key_prefix_ + std::to_string(artifact_.objects.size()) + ".safetensors";
  object.prefix_bytes = pack->prefix.size();
  if (tables) object.prefix_sha256 = sha256_hex(as_bytes(pack->prefix));
  std::vector<ByteSpan> pieces = {as_bytes(pack->prefix)};
  for (const PackEntry& entry : pack->entries) pieces.emplace_back(entry.sections);
  Sha256 sha;
  for (const ByteSpan& piece : pieces) {
    sha.update(piece);
    object.length_bytes += piece.size();
  }
  object.sha256 = to_hex(sha.finish());
  pack->source.emplace(std::move(pieces), object.sha256);
  SILT_TRY(uploads_.add(object.length_bytes, [&store = store_, pack, key = object.key] {
    return create_unique(store, key, *pack->source);
  }));
  artifact_.bytes += object.length_bytes;
  artifact_.objects.push_back(std::move(object));
  return {};
}

Result<Artifact> PackWriter::finish() {
  SILT_TRY(flush());
  artifact_.kind = ArtifactKind::kDelta;
  return std::move(artifact_);
}

}  // namespace siltstone
