// Import: find where the branch stands; bring its state, or the first full foreign version, into
// memory; then move it version by version, publishing each once it is proven.
#include <algorithm>
#include <chrono>

#include "base/try.h"
#include "interchange/source.h"
#include "repo/bucket.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

class Importer {
 public:
  Importer(Repository& repository, fs::path folder, const ImportOptions& options)
      : repository_(repository), folder_(std::move(folder)), options_(options) {
    publish_ = options.publish;
    publish_.retained = &retained_;
    publish_.cache.clear();
  }

  Result<ImportReport> run();

 private:
  Status open_source();
  Status find_head();
  Status begin();
  Status publish_base();
  Status import_one(uint64_t number);
  Status load_head();
  Status publish(uint64_t number, const std::string& origin);
  std::string where(uint64_t number) const {
    return "'" + (folder_ / source_->name(number)).string() + "'";
  }

  Repository& repository_;
  fs::path folder_;
  const ImportOptions& options_;
  PublishOptions publish_;
  RetainedBase retained_;
  std::unique_ptr<Source> source_;
  std::unique_ptr<ModelState> state_;
  std::optional<Version> head_;
  std::optional<uint64_t> at_;  // the foreign version that the branch's head holds
  ImportReport report_;
};

Status Importer::open_source() {
  std::optional<Layout> layout = options_.layout;
  std::error_code error;
  if (!fs::is_directory(folder_, error))
    return Error{Code::kNotFound, "there is no folder '" + folder_.string() + "'"};
  if (!layout) {
    const bool trl = is_trl(folder_);
    const bool slime = is_slime(folder_);
    if (trl && slime) {
      return Error{Code::kInvalidArgument, "'" + folder_.string() +
                                               "' holds versions of both trl and slime; say which "
                                               "with --format"};
    }
    if (trl) layout = Layout::kTrl;
    if (slime) layout = Layout::kSlime;
  }
  if (!layout) {
    return Error{Code::kNotFound, "'" + folder_.string() +
                                      "' holds neither anchors/ and deltas/ (trl) nor "
                                      "weight_vNNNNNN/ (slime)"};
  }
  report_.layout = *layout;
  const SourceOptions options{options_.unchecked, publish_.threads};
  SILT_ASSIGN(source_,
              *layout == Layout::kTrl ? open_trl(folder_, options) : open_slime(folder_, options));
  report_.pending = source_->pending();
  return {};
}

// The branch's newest version that carries a state of its own, if there is the branch.
Status Importer::find_head() {
  Result<Version> head = repository_.head(publish_.branch);
  if (!head && head.error().code == Code::kNotFound) return {};
  if (!head) return std::move(head).error();
  head_ = *std::move(head);
  publish_.parent = head_->id.name();
  Bucket& bucket = as_bucket(repository_);
  SILT_ASSIGN(Commit commit, bucket.history().read(head_->id));
  while (commit.fence) {
    SILT_ASSIGN(std::optional<Commit> parent, bucket.history().parent(commit));
    if (!parent) break;
    commit = *std::move(parent);
  }
  if (!commit.step || *commit.step < 0) {
    return Error{Code::kMismatch, commit.id.name() +
                                      " has no step, so it is not known which foreign version it "
                                      "holds; import into a branch of its own"};
  }
  at_ = static_cast<uint64_t>(*commit.step);
  return {};
}

Status Importer::publish_base() {
  SILT_ASSIGN(const std::unique_ptr<Checkpoint> base, open_checkpoint(options_.base));
  SILT_ASSIGN(state_, ModelState::read(*base, publish_.threads));
  return publish(0, options_.base.string());
}

// Without a version to go on from: the base, or the first full version there is.
Status Importer::begin() {
  if (head_) return {};
  if (!options_.base.empty()) return publish_base();
  const std::vector<uint64_t>& numbers = source_->numbers();
  for (const uint64_t number : numbers) {
    SILT_ASSIGN(const bool full, source_->is_full(number));
    if (full) return {};
    report_.skipped.push_back(source_->name(number) + ": no full version comes before it");
    at_ = number;
  }
  if (numbers.empty() && report_.pending.empty())
    return Error{Code::kNotFound, "'" + folder_.string() + "' holds no version yet"};
  if (numbers.empty()) return Error{Code::kNotFound, report_.pending};
  return Error{Code::kNotFound,
               "no version in '" + folder_.string() + "' is full, the first is the delta '" +
                   source_->name(numbers.front()) + "'; name the model it builds on with --base"};
}

Status Importer::load_head() {
  LoadOptions options;
  options.threads = publish_.threads;
  options.memory_bytes = publish_.memory_bytes;
  options.progress = publish_.progress;
  SILT_ASSIGN(state_, ModelState::load(repository_, *head_, options));
  return {};
}

Status Importer::publish(uint64_t number, const std::string& origin) {
  publish_.step = static_cast<int64_t>(number);
  publish_.message = "imported from " + std::string(layout_name(report_.layout)) + ": " + origin;
  SILT_ASSIGN(const PublishReport published, repository_.publish(*state_, publish_));
  head_ = published.version;
  at_ = number;
  publish_.parent = head_->id.name();
  ++report_.versions;
  report_.bytes_written += published.bytes_written;
  if (options_.on_version) options_.on_version(published);
  return {};
}

Status Importer::import_one(uint64_t number) {
  SILT_ASSIGN(const bool full, source_->is_full(number).in(where(number)));
  // A full version of the same tensors keeps the head's layout of files and its companions.
  if (state_ == nullptr && head_) SILT_TRY(load_head());
  if (full) {
    SILT_TRY(source_->read(number, &state_).in(where(number)));
  } else {
    SILT_TRY(source_->apply(number, *at_, state_.get()).in(where(number)));
  }
  return publish(number, source_->name(number));
}

Result<ImportReport> Importer::run() {
  const auto start = std::chrono::steady_clock::now();
  SILT_TRY(open_source());
  SILT_TRY(find_head());
  SILT_TRY(begin());
  const std::vector<uint64_t> numbers = source_->numbers();
  for (const uint64_t number : numbers) {
    if (!at_ || number > *at_) SILT_TRY(import_one(number));
  }
  report_.head = head_;
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(report_);
}

}  // namespace

std::string_view layout_name(Layout layout) {
  return layout == Layout::kTrl ? "trl" : "slime";
}

Status prove_root(const ModelState& state, const std::string& root, unsigned threads) {
  SILT_ASSIGN(const std::string found, state.state_digest(threads));
  if (found == root) return {};
  return Error{Code::kCorrupt,
               "the state's digest is " + found + ", the exporter noted " + quote(root)};
}

Result<ImportReport> import_versions(Repository& repository, const fs::path& folder,
                                     const ImportOptions& options) {
  return Importer(repository, folder, options).run();
}

}  // namespace siltstone
