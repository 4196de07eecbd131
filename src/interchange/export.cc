// Export: list the versions of the range, oldest first; pass over what the folder holds; move one
// state in memory from version to version, and write what each changed beside a copy of the one
// before.
#include <algorithm>
#include <chrono>

#include "base/files.h"
#include "base/try.h"
#include "interchange/sink.h"
#include "repo/bucket.h"
#include "siltstone/replica.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

class Exporter {
 public:
  Exporter(Repository& repository, fs::path folder, const ExportOptions& options)
      : repository_(repository), folder_(std::move(folder)), options_(options) {}

  Result<ExportReport> run(std::string_view range);

 private:
  Result<std::vector<Version>> list(std::string_view range);
  Result<std::optional<Version>> parent(const Version& version);
  Result<bool> is_there(const Version& version);
  Status export_one(const Version& version);
  Result<bool> write_change(const Version& version, const Version& before, ExportedVersion* out);
  Status hold(const Version& version);
  Status move_to(const Version& version);

  Repository& repository_;
  fs::path folder_;
  const ExportOptions& options_;
  std::unique_ptr<Sink> sink_;
  // The state at_ in memory, if there is one: replica_ moves next_, old_ is a copy of it.
  std::optional<Version> at_;
  std::unique_ptr<ModelState> next_;
  std::unique_ptr<ModelState> old_;
  std::unique_ptr<Replica> replica_;
  ExportReport report_;
};

Result<std::optional<Version>> Exporter::parent(const Version& version) {
  Bucket& bucket = as_bucket(repository_);
  SILT_ASSIGN(const Commit commit, bucket.history().read(version.id));
  SILT_ASSIGN(const std::optional<Commit> found, bucket.history().parent(commit));
  return found ? std::optional(found->version()) : std::nullopt;
}

Result<std::vector<Version>> Exporter::list(std::string_view range) {
  const size_t dots = range.find("..");
  const bool two = dots != std::string_view::npos;
  const std::string_view last_ref = two ? range.substr(dots + 2) : range;
  SILT_ASSIGN(const VersionRef ref, VersionRef::parse(last_ref));
  SILT_ASSIGN(Version last, repository_.resolve(last_ref));
  if (!two && ref.kind != VersionRef::Kind::kHead) return std::vector{std::move(last)};
  std::optional<Version> first;
  if (two) {
    SILT_ASSIGN(first, repository_.resolve(range.substr(0, dots)));
  }
  std::vector<Version> versions;
  std::optional<Version> at = std::move(last);
  while (at) {
    versions.push_back(*at);
    if (first && at->id == first->id) break;
    SILT_ASSIGN(at, parent(versions.back()));
  }
  if (first && !at) {
    return Error{Code::kInvalidArgument,
                 first->id.name() + " does not come before " + versions.front().id.name()};
  }
  std::ranges::reverse(versions);
  return versions;
}

// Whether the folder holds the version already; kConflict if it holds another of that number.
Result<bool> Exporter::is_there(const Version& version) {
  SILT_ASSIGN(const std::optional<std::string> root, sink_->root_of(version.id.seq));
  if (!root) return false;
  if (*root == version.root) return true;
  return Error{Code::kConflict, "'" + folder_.string() + "' holds a version " +
                                    std::to_string(version.id.seq) + " that is not " +
                                    version.id.name() +
                                    (root->empty() ? " as far as can be told" : "") +
                                    "; nothing is overwritten: name another folder"};
}

// Has the version's state in memory.
Status Exporter::hold(const Version& version) {
  if (at_ && at_->id == version.id && next_ != nullptr) return {};
  replica_ = nullptr;
  old_ = nullptr;
  at_ = std::nullopt;
  LoadOptions load;
  load.threads = options_.threads;
  load.memory_bytes = options_.memory_bytes;
  load.progress = options_.progress;
  SILT_ASSIGN(next_, ModelState::load(repository_, version, load));
  at_ = version;
  return {};
}

Status Exporter::move_to(const Version& version) {
  StageOptions stage;
  stage.threads = options_.threads;
  stage.memory_bytes = options_.memory_bytes;
  stage.progress = options_.progress;
  at_ = std::nullopt;
  SILT_ASSIGN(std::unique_ptr<Staged> staged, replica_->stage(repository_, version, stage));
  const CommitReport commit = replica_->commit(std::move(staged));
  SILT_TRY(commit.status);
  at_ = version;
  return {};
}

// False if the change cannot be expressed.
Result<bool> Exporter::write_change(const Version& version, const Version& before,
                                    ExportedVersion* out) {
  SILT_TRY(hold(before));
  SILT_ASSIGN(const std::vector<TensorInfo> tensors, repository_.tensors(version));
  if (!std::ranges::equal(tensors, next_->tensors())) return false;
  if (old_ == nullptr) {
    SILT_ASSIGN(old_, ModelState::read(*next_, options_.threads));
    SILT_ASSIGN(replica_, Replica::adopt(next_->views(), before));
  }
  SILT_TRY(move_to(version));
  SILT_ASSIGN(const bool written, sink_->write_delta(version, before, old_.get(), *next_, out));
  if (!written) SILT_TRY(old_->refill(*next_, options_.threads));
  return written;
}

Status Exporter::export_one(const Version& version) {
  SILT_ASSIGN(const bool there, is_there(version));
  if (there) {
    ++report_.present;
    return {};
  }
  SILT_ASSIGN(const std::optional<Version> before, parent(version));
  ExportedVersion out;
  out.version = version;
  bool written = false;
  if (before) {
    SILT_ASSIGN(const std::optional<std::string> root, sink_->root_of(before->id.seq));
    if (root && *root == before->root) {
      SILT_ASSIGN(written, write_change(version, *before, &out));
    }
  }
  if (!written) {
    SILT_TRY(sink_->write_full(
        version,
        [&]() -> Result<const ModelState*> {
          SILT_TRY(hold(version));
          return next_.get();
        },
        &out));
  }
  ++report_.versions;
  report_.bytes_written += out.bytes_written;
  if (options_.on_version) options_.on_version(out);
  return {};
}

Result<ExportReport> Exporter::run(std::string_view range) {
  const auto start = std::chrono::steady_clock::now();
  SILT_ASSIGN(sink_, options_.layout == Layout::kTrl
                         ? make_trl_sink(folder_, options_)
                         : make_slime_sink(repository_, folder_, options_));
  SILT_ASSIGN(const std::vector<Version> versions, list(range));
  SILT_TRY(make_directories(folder_));
  for (const Version& version : versions) {
    SILT_TRY(export_one(version).in("export " + version.id.name()));
  }
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report_;
}

}  // namespace

Result<ExportReport> export_versions(Repository& repository, std::string_view range,
                                     const fs::path& folder, const ExportOptions& options) {
  return Exporter(repository, fs::absolute(folder).lexically_normal(), options).run(range);
}

}  // namespace siltstone
