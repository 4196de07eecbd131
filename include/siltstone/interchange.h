// Moving over from two other layouts of weight deltas, and back to them: the sparse safetensors
// files of TRL's prototype and the disk deltas of slime. docs/guides/interchange.md says what maps
// to what, and what those layouts cannot prove.
//
// Both calls hold the model in host memory twice. What was published or written before an error
// stays; the call may be made again and goes on from there.
// Threads: one import per branch and one export per folder at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/repository.h"
#include "siltstone/result.h"
#include "siltstone/version.h"

namespace siltstone {

enum class Layout : uint8_t {
  kTrl,    // anchors/step_NNNNNN.safetensors and deltas/step_NNNNNN.safetensors
  kSlime,  // weight_vNNNNNN/, each a model folder or the difference to the version before
};

inline constexpr Layout kLayouts[] = {Layout::kTrl, Layout::kSlime};
std::string_view layout_name(Layout layout);  // "trl", "slime"

struct ImportOptions {
  std::optional<Layout> layout;  // empty: by what the folder holds
  // A model that the layout's first delta builds on, published as step 0: for slime the model that
  // the engines were started with.
  std::filesystem::path base;
  // Accept what cannot be checked: digests of a kind that this library does not compute (blake3),
  // and a delta of TRL's behind a gap in the numbering, taken for steps that changed nothing.
  bool unchecked = false;
  // branch, codec, effort, momentum, pack_anchors, threads, memory_bytes and progress; an import
  // sets the rest itself: `step` is the foreign version's number.
  PublishOptions publish;
  std::function<void(const PublishReport&)> on_version;  // after each one published
};

struct ImportReport {
  Layout layout = Layout::kTrl;
  uint64_t versions = 0;  // published by this call
  std::optional<Version> head;
  uint64_t bytes_written = 0;
  std::vector<std::string> skipped;  // what was left out, with the reason: for people
  std::string pending;               // the newest version, if its writer is not done; else empty
  double seconds = 0;
};

// Publishes every foreign version of `folder` that is newer than the branch's head. Each is checked
// as far as the layout allows before it is published: kMismatch if one does not follow the version
// before, kCorrupt if its bytes are not what they should be.
Result<ImportReport> import_versions(Repository& repository, const std::filesystem::path& folder,
                                     const ImportOptions& options);

struct ExportedVersion {
  Version version;
  bool full = false;  // else the difference to the version before
  uint64_t bytes_written = 0;
  uint64_t changed_elements = 0;  // of a difference: words, or bytes where the layout counts bytes
  std::string path;               // below the folder
};

struct ExportOptions {
  Layout layout = Layout::kTrl;
  // trl: "gap_delta", "raw", or "indices", the earlier files. slime: "xor" or "overwrite". Empty:
  // the first of these.
  std::string encoding;
  unsigned threads = 0;
  uint64_t memory_bytes = uint64_t{1} << 30;
  Progress progress;
  std::function<void(const ExportedVersion&)> on_version;  // after each one written
};

struct ExportReport {
  uint64_t versions = 0;  // written by this call
  uint64_t present = 0;   // which the folder held already
  uint64_t bytes_written = 0;
  double seconds = 0;
};

// Writes versions into `folder`, made if absent, under their sequence numbers. `range` is a version
// ("main@7"), two ("main@3..main@7"), or a branch, which means all of it. The first is written
// whole, unless the folder holds the version before it; so is every one that the layout cannot
// express as a difference. Files appear whole, are durable, and are never overwritten: kConflict if
// one of another version has the name.
Result<ExportReport> export_versions(Repository& repository, std::string_view range,
                                     const std::filesystem::path& folder,
                                     const ExportOptions& options);

}  // namespace siltstone
