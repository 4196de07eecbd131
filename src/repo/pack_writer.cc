#include "repo/pack_writer.h"

#include "base/checksum.h"
#include "base/try.h"
#include "delta/pack.h"
#include "repo/objects.h"

namespace siltstone {

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
  return gathered_bytes_ >= pack_bytes_ ? flush() : Status();
}

Status PackWriter::flush() {
  if (pack_.empty()) return {};
  std::vector<PackEntry> entries;
  for (auto& [tensor, sections] : pack_) entries.push_back({tensor, std::move(sections)});
  pack_.clear();
  gathered_bytes_ = 0;
  const std::string prefix = pack_prefix(
      entries,
      {{"siltstone.format", "1"}, {"siltstone.kind", "delta"}, {"siltstone.from", from_root_}});
  std::vector<ByteSpan> pieces = {as_bytes(prefix)};
  Sha256 sha;
  sha.update(as_bytes(prefix));
  for (const PackEntry& entry : entries) {
    pieces.emplace_back(entry.sections);
    sha.update(entry.sections);
  }
  const PiecesSource source(std::move(pieces));
  ObjectRef object;
  object.key = key_prefix_ + std::to_string(artifact_.objects.size()) + ".safetensors";
  object.length_bytes = source.size_bytes();
  object.sha256 = to_hex(sha.finish());
  object.prefix_bytes = prefix.size();
  SILT_TRY(create_unique(store_, object.key, source));
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
