#include "repo/way_back.h"

#include <vector>

#include "base/files.h"
#include "base/try.h"
#include "delta/diff.h"
#include "delta/section.h"
#include "repo/objects.h"
#include "store/local.h"
#include "store/memory.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderPrefix = "way-back-";
constexpr std::string_view kRecordName = "record.json";
constexpr std::string_view kKeyPrefix = "obj/";
// Many small packs: it is read whole or not at all, and written while little memory is left.
constexpr uint64_t kPackBytes = uint64_t{16} << 20;

std::vector<fs::path> ways_back(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (fs::directory_iterator at(folder, ignored), end; !ignored && at != end;
       at.increment(ignored)) {
    if (at->path().filename().string().starts_with(kFolderPrefix)) found.push_back(at->path());
  }
  return found;
}

std::optional<Artifact> read_record(const fs::path& own) {
  const Result<std::string> text = read_file(own / kRecordName, kMaxListBytes);
  if (!text) return std::nullopt;
  Result<Artifact> artifact = parse_artifact(*text);
  if (!artifact || artifact->kind != ArtifactKind::kDelta) return std::nullopt;
  return *std::move(artifact);
}

}  // namespace

bool wants_way_back(const Commit& version) {
  const Artifact* delta = version.find(ArtifactKind::kDelta);
  return delta != nullptr && delta->momentum && version.find(ArtifactKind::kAnchor) == nullptr;
}

std::shared_ptr<Store> memory_for_way_back() {
  return std::make_shared<MemoryStore>("a way back in memory");
}

std::shared_ptr<Store> disk_for_way_back(const fs::path& folder) {
  return std::make_shared<LocalStore>(fs::absolute(folder) / unique_name(kFolderPrefix));
}

Status record_way_back(const WayBack& way) {
  const std::string text = format_artifact(way.artifact);
  return way.store->create(kRecordName, PiecesSource({as_bytes(text)}));
}

std::optional<WayBack> find_way_back(const fs::path& folder, std::string_view root) {
  for (const fs::path& own : ways_back(folder)) {
    std::optional<Artifact> artifact = read_record(own);
    if (!artifact || artifact->from_root != root) continue;
    return WayBack{std::make_shared<LocalStore>(fs::absolute(own)), *std::move(artifact)};
  }
  return std::nullopt;
}

void sweep_ways_back(const fs::path& folder, std::string_view root) {
  std::error_code ignored;
  for (const fs::path& own : ways_back(folder)) {
    const std::optional<Artifact> artifact = read_record(own);
    if (!artifact || artifact->from_root != root) fs::remove_all(own, ignored);
  }
}

Status append_way_back(const TileChange& change, const Tile& tile, const Sum128& before,
                       const Sum128& after, std::vector<std::byte>* out) {
  TileChange back = change;
  std::swap(back.old_words, back.new_words);
  std::swap(back.changed_words, back.replaced_words);
  back.earlier_words = {};
  // It is written for every version and read once, near by: speed is worth more than bytes.
  back.effort = Effort::kFast;
  return append_section(back, tile, after, before, nullptr, out);
}

WayBackWriter::WayBackWriter(std::shared_ptr<Store> store)
    : store_(std::move(store)),
      uploads_(*store_, kPackBytes),
      packs_(*store_, uploads_, std::string(kKeyPrefix), "", {.pack_bytes = kPackBytes}) {}

void WayBackWriter::keep(Status status) {
  if (status_) status_ = std::move(status);
}

void WayBackWriter::add(const TensorInfo& info, const Tile& tile, ByteSpan before, ByteSpan after) {
  const WordMatrix matrix = word_matrix(info);
  thread_local ChangeList changes;
  changes.clear(matrix.word_bytes);
  changes.append(after, before);
  if (changes.changed() == 0) return;
  const uint64_t offset_bytes = tile.row_begin * matrix.cols * matrix.word_bytes;
  const TileChange change = tile_change(info.dtype, before, after, changes);
  std::vector<std::byte> section;
  Status status = append_way_back(change, tile, digest_bytes(before, offset_bytes),
                                  digest_bytes(after, offset_bytes), &section);
  if (status) return add(info.name, std::move(section), changes.changed());
  const std::lock_guard lock(mutex_);
  keep(std::move(status));
}

void WayBackWriter::add(const std::string& tensor, std::vector<std::byte> sections,
                        uint64_t changed_elements) {
  const std::lock_guard lock(mutex_);
  if (status_) keep(packs_.add(tensor, std::move(sections), changed_elements));
}

Result<WayBack> WayBackWriter::finish(const std::string& from_root, const std::string& to_root) {
  SILT_TRY(std::move(status_));
  SILT_ASSIGN(Artifact artifact, packs_.finish());
  artifact.from_root = from_root;
  artifact.to_root = to_root;
  return WayBack{store_, std::move(artifact)};
}

}  // namespace siltstone
