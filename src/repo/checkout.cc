// Checkout: rebuild a version into a fresh folder, every file byte for byte. The folder appears,
// whole, by one rename.
#include "repo/checkout.h"

#include <chrono>
#include <numeric>

#include "base/try.h"
#include "repo/base.h"
#include "repo/bucket.h"
#include "repo/rebuild.h"
#include "repo/weight_files.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

// Removes a folder that was not finished.
class Unfinished {
 public:
  explicit Unfinished(fs::path folder) : folder_(std::move(folder)) {}
  ~Unfinished() {
    std::error_code ignored;
    if (!folder_.empty()) fs::remove_all(folder_, ignored);
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  void keep() { folder_.clear(); }

 private:
  fs::path folder_;
};

// Whether something is there that a checkout must not overwrite unasked.
Result<bool> is_occupied(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder, error);
  if (status.type() == fs::file_type::not_found) return false;
  if (error) return os_error(error.value(), "examine", folder);
  if (status.type() != fs::file_type::directory) {
    return Error{Code::kInvalidArgument, "'" + folder.string() + "' exists and is not a folder"};
  }
  const bool empty = fs::is_empty(folder, error);
  if (error) return os_error(error.value(), "list", folder);
  return !empty;
}

// Puts the finished folder in place of what is there.
Status install(const fs::path& finished, const fs::path& folder, bool occupied) {
  const fs::path parent = folder.parent_path();
  fs::path aside;
  if (occupied) {
    aside = parent / unique_name("." + folder.filename().string() + ".old-");
    SILT_TRY(rename_file(folder, aside));
  }
  Status renamed = rename_file(finished, folder);
  if (!renamed) {
    if (occupied) (void)rename_file(aside, folder);
    return renamed;
  }
  SILT_TRY(sync_directory(parent));
  std::error_code ignored;
  if (occupied) fs::remove_all(aside, ignored);
  return {};
}

}  // namespace

Result<std::vector<Sum128>> write_version(Bucket& bucket, const Commit& commit,
                                          const fs::path& folder, const CheckoutOptions& options,
                                          WayBackWriter* back, CheckoutReport* report) {
  SILT_ASSIGN(const std::shared_ptr<const Schema> schema, bucket.history().schema(commit.schema));
  std::vector<size_t> all_files(schema->files.size());
  std::iota(all_files.begin(), all_files.end(), size_t{0});
  SILT_ASSIGN(WeightFiles files, WeightFiles::create(*schema, all_files, folder));
  Meter meter(options.progress, schema->total_bytes());
  SILT_ASSIGN(ProvenVersion proven,
              rebuild_version(bucket, commit, *schema,
                              {.threads = options.threads,
                               .memory_bytes = options.memory_bytes,
                               .meter = &meter,
                               .back = back},
                              [&files](size_t tensor, uint64_t offset, ByteSpan words, bool) {
                                return files.write(tensor, offset, words);
                              }));
  SILT_TRY(files.finish(options.threads));
  report->version = commit.version();
  report->bytes_fetched = proven.fetched_bytes;
  report->bytes_written = files.bytes_written();
  report->files = schema->files.size() + schema->companions.size();
  std::vector<const CompanionRef*> companions;
  for (const CompanionRef& companion : schema->companions) companions.push_back(&companion);
  SILT_ASSIGN(const uint64_t companion_bytes,
              write_companions(*bucket.store(), companions, folder));
  report->bytes_fetched += companion_bytes;
  report->bytes_written += companion_bytes;
  SILT_TRY(sync_folders(folder));
  return std::move(proven.sums);
}

Result<CheckoutReport> Bucket::checkout(const Version& version, const fs::path& target,
                                        const CheckoutOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  fs::path folder = fs::absolute(target).lexically_normal();
  if (folder.filename().empty()) folder = folder.parent_path();
  SILT_ASSIGN(const bool occupied, is_occupied(folder));
  if (occupied && !options.replace) {
    return Error{Code::kConflict, "'" + target.string() +
                                      "' is not empty; name another folder, or replace it "
                                      "with --force"};
  }
  SILT_ASSIGN(const Commit commit, history_.read(version.id));
  SILT_TRY(make_directories(folder.parent_path()));
  const fs::path building =
      folder.parent_path() / unique_name("." + folder.filename().string() + ".new-");
  Unfinished unfinished(building);
  SILT_TRY(make_directories(building));
  CheckoutReport report;
  SILT_TRY(write_version(*this, commit, building, options, nullptr, &report));
  SILT_TRY(install(building, folder, occupied));
  unfinished.keep();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace siltstone
