// Repositories over a store behind a network: which requests are made, and which at the same time.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "repo/bucket.h"
#include "repo/chain.h"
#include "repo/keys.h"
#include "repo/objects.h"
#include "repo/plan.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"
#include "store/memory.h"
#include "support/remote_store.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::RemoteStore;
using test::ScratchFolder;
using test::TinyModel;
using Lines = std::vector<std::string>;

constexpr unsigned kTransfers = 8;
// Long enough that requests made together are seen together on a busy machine.
constexpr auto kLatency = std::chrono::milliseconds(10);

std::string commit_name(uint64_t seq) {
  return commit_key("main", seq);
}

class TransfersTest : public ::testing::Test {
 protected:
  TransfersTest() { EXPECT_TRUE(Repository::init(memory_)); }

  std::unique_ptr<Repository> open(std::shared_ptr<Store> store) {
    return *Repository::open(std::move(store));
  }
  // Many small objects.
  static void make_small(Repository& repository) {
    Tuning& tuning = as_bucket(repository).tuning;
    tuning.pack_bytes = 64;
    tuning.batch_bytes = 64;
    tuning.anchor_object_bytes = 100;
  }
  Result<PublishReport> publish(Repository& repository) {
    PublishOptions options;
    options.threads = 1;
    options.retained = &base_;
    model_.step(++steps_);
    return repository.publish(*model_.checkpoint(companions_), options);
  }
  // Versions that nobody counts.
  void publish_locally(int versions) {
    const auto local = open(memory_);
    as_bucket(*local).tuning.path_objects = 1000;
    for (int i = 0; i < versions; ++i) ASSERT_TRUE(publish(*local));
  }
  uint64_t bytes_of(const std::string& prefix) {
    uint64_t bytes = 0;
    for (const ObjectInfo& object : *memory_->list(prefix)) bytes += object.size_bytes;
    return bytes;
  }
  // Stores bytes that differ from one place to the next.
  ObjectRef put(const std::string& key, size_t size) {
    std::vector<std::byte> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 131 + i / 251);
    EXPECT_TRUE(memory_->create(key, PiecesSource({bytes})));
    return {key, size, sha256_hex(bytes), 0};
  }

  std::shared_ptr<MemoryStore> memory_ = std::make_shared<MemoryStore>("mem://transfers");
  std::shared_ptr<RemoteStore> remote_ =
      std::make_shared<RemoteStore>(memory_, kTransfers, kLatency);
  RetainedBase base_;
  TinyModel model_;
  std::map<std::string, std::string> companions_;
  uint64_t steps_ = 0;
};

TEST_F(TransfersTest, PiecesOfAnObjectComeInOrder) {
  const ObjectRef object = put("obj/a", 10'000);
  std::vector<std::byte> found;
  const ReadAhead ahead{kTransfers, 128};
  ASSERT_TRUE(stream_object(*remote_, object, ahead, [&](uint64_t offset, ByteSpan piece) {
    EXPECT_EQ(offset, found.size());
    found.insert(found.end(), piece.begin(), piece.end());
    return Status();
  }));
  EXPECT_EQ(sha256_hex(found), object.sha256);
  EXPECT_EQ(remote_->count("read"), 79U);
  EXPECT_LE(remote_->most_in_flight(), kTransfers);
  EXPECT_GE(remote_->most_in_flight(), kTransfers / 2);
}

TEST_F(TransfersTest, PiecesOfSeveralObjectsFillTheWindow) {
  std::vector<ObjectRef> objects;
  for (int i = 0; i < 12; ++i) objects.push_back(put("obj/" + std::to_string(i), 100 * i));
  std::vector<std::vector<std::byte>> kept(objects.size());
  std::vector<Promised> wanted;
  for (size_t i = 0; i < objects.size(); ++i)
    wanted.push_back({&objects[i], i % 2 == 0 ? &kept[i] : nullptr});
  ASSERT_TRUE(prove_objects(*remote_, wanted, {}));
  for (size_t i = 0; i < objects.size(); i += 2) EXPECT_EQ(sha256_hex(kept[i]), objects[i].sha256);
  EXPECT_EQ(remote_->count(), 11U) << "one each, none for the empty one, and no sizes";
  EXPECT_LE(remote_->most_in_flight(), kTransfers);
  EXPECT_GE(remote_->most_in_flight(), kTransfers / 2);
}

TEST_F(TransfersTest, PiecesFitTheBudget) {
  for (const uint64_t budget : {uint64_t{0}, uint64_t{1} << 20, uint64_t{1} << 30}) {
    const ReadAhead ahead = ReadAhead::of(*remote_, budget);
    EXPECT_GE(ahead.requests, 1U);
    EXPECT_LE(ahead.requests, kTransfers);
    EXPECT_LE(2 * ahead.requests * ahead.piece_bytes,
              std::max<uint64_t>(budget, uint64_t{512} << 10));
  }
  EXPECT_EQ(ReadAhead::of(*memory_, uint64_t{1} << 30).requests, 1U);
}

TEST_F(TransfersTest, OneErrorEndsAll) {
  const ObjectRef object = put("obj/a", 10'000);
  uint64_t pieces = 0;
  const Status status =
      stream_object(*remote_, object, {kTransfers, 100}, [&](uint64_t, ByteSpan) -> Status {
        if (++pieces < 3) return {};
        return Error{Code::kCancelled, "enough"};
      });
  EXPECT_EQ(status.error().code, Code::kCancelled);
  EXPECT_EQ(pieces, 3U);
  EXPECT_LE(remote_->count(), 3U + 3 * kTransfers);
}

TEST_F(TransfersTest, AnObjectMustBeWhatTheCommitPromises) {
  ObjectRef object = put("obj/a", 1000);
  object.length_bytes = 1001;
  EXPECT_EQ(prove_object(*remote_, object, nullptr).error().code, Code::kCorrupt);
  EXPECT_EQ(prove_object(*memory_, object, nullptr).error().code, Code::kCorrupt);
  object.length_bytes = 999;
  EXPECT_EQ(prove_object(*remote_, object, nullptr).error().code, Code::kCorrupt);
  object.key = "obj/none";
  EXPECT_EQ(prove_object(*remote_, object, nullptr).error().code, Code::kCorrupt);
  // Bytes behind those that are promised: nobody reads them, but verify says that they are there.
  std::vector<std::byte> first(999);
  ASSERT_TRUE(memory_->read("obj/a", 0, first));
  object = {"obj/a", 999, sha256_hex(first), 0};
  EXPECT_TRUE(prove_object(*remote_, object, nullptr));
  EXPECT_EQ(prove_object(*memory_, object, nullptr).error().code, Code::kCorrupt);
  EXPECT_EQ(check_length(*remote_, object).error().code, Code::kCorrupt);
}

TEST_F(TransfersTest, PollOfAnUnchangedBranchIsOneRequest) {
  publish_locally(3);
  const auto repository = open(remote_);
  ASSERT_EQ(repository->head("main")->id.seq, 2U);
  ASSERT_EQ(repository->head("main")->id.seq, 2U);
  for (int i = 0; i < 3; ++i) {
    remote_->clear();
    ASSERT_EQ(repository->head("main")->id.seq, 2U);
    EXPECT_EQ(remote_->lines(), Lines({"read_all " + commit_name(3)}));
  }
  publish_locally(1);
  remote_->clear();
  ASSERT_EQ(repository->head("main")->id.seq, 3U);
  EXPECT_EQ(remote_->lines(), Lines({"read_all " + commit_name(3), "read_all " + commit_name(4)}));
}

TEST_F(TransfersTest, FarHeadIsFoundInFewRounds) {
  publish_locally(1);
  const auto repository = open(remote_);
  ASSERT_TRUE(repository->head("main"));
  publish_locally(200);
  remote_->clear();
  ASSERT_EQ(repository->head("main")->id.seq, 200U);
  EXPECT_LE(remote_->count(), 40U);
  EXPECT_GE(remote_->most_in_flight(), kTransfers / 2);
  remote_->clear();
  ASSERT_EQ(open(remote_)->head("main")->id.seq, 200U);
  EXPECT_LE(remote_->count(), 6U) << "the hint leads there";
}

TEST_F(TransfersTest, ParentsAreReadTogether) {
  publish_locally(60);
  const auto repository = open(remote_);
  remote_->clear();
  const auto log = repository->log("main", 1000);
  ASSERT_TRUE(log);
  ASSERT_EQ(log->size(), 60U);
  std::set<std::string> names;
  for (const std::string& line : remote_->lines())
    EXPECT_TRUE(names.insert(line).second || line.find("branches/") != line.npos) << line;
  EXPECT_LE(remote_->count(), 60U + 4);
  EXPECT_LE(remote_->most_in_flight(), kTransfers);
  EXPECT_GE(remote_->most_in_flight(), kTransfers / 2);
}

TEST_F(TransfersTest, NearAnchorKeepsAWalkShort) {
  publish_locally(60);
  const auto local = open(memory_);
  as_bucket(*local).tuning.path_objects = 1;
  ASSERT_TRUE(publish(*local));
  ASSERT_NE((*local->head("main")).artifacts.back().kind, ArtifactKind::kDelta);
  as_bucket(*local).tuning.path_objects = 1000;
  ASSERT_TRUE(publish(*local));
  const auto repository = open(remote_);
  Bucket& bucket = as_bucket(*repository);
  const Commit head = *bucket.history().resolve({VersionRef::Kind::kHead, "main", 0});
  remote_->clear();
  const Result<Path> path = plan_path(bucket.history(), head, std::nullopt);
  ASSERT_TRUE(path);
  EXPECT_EQ(path->links.size(), 1U);
  EXPECT_LE(remote_->count(), 5U);
}

TEST_F(TransfersTest, PublisherWaitsForPackAndCommitAlone) {
  companions_["config.json"] = R"({"layers": 3})";
  auto repository = open(remote_);
  ASSERT_TRUE(publish(*repository));
  ASSERT_TRUE(publish(*repository));
  repository = nullptr;  // its hint is written
  repository = open(remote_);
  ASSERT_TRUE(publish(*repository));
  size_t alone = 0;
  for (int i = 0; i < 3; ++i) {
    remote_->clear();
    const auto report = publish(*repository);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->kind, ArtifactKind::kDelta);
    Lines waited;
    for (const RemoteStore::Request& request : remote_->requests()) {
      if (request.operation != "replace")
        waited.push_back(request.operation + " " + request.name.substr(0, 4));
    }
    // With an anchor where one was due.
    Lines expected(report->version.artifacts.size(), "create obj/");
    alone += expected.size() == 1;
    expected.push_back("create log/");
    EXPECT_EQ(waited, expected);
  }
  EXPECT_GT(alone, 0U);
  repository = nullptr;
  EXPECT_EQ(parse_head(*memory_->read_all(head_key("main"), 1000)), 5U);
  // The hint that a new process begins with.
  EXPECT_EQ(open(remote_)->head("main")->id.seq, 5U);
}

TEST_F(TransfersTest, PublisherThatWasTakenOverIsRefusedOnce) {
  const auto repository = open(remote_);
  ASSERT_TRUE(publish(*repository));
  ASSERT_TRUE(publish(*repository));
  const auto other = open(memory_);
  ASSERT_TRUE(other->publish(*model_.checkpoint(), {}));
  const auto refused = publish(*repository);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kConflict) << refused.error().message;
  const auto again = publish(*repository);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->version.id.seq, 3U);
  EXPECT_EQ(again->version.epoch, 2U);
  const ScratchFolder scratch;
  ASSERT_TRUE(repository->checkout(again->version, scratch.path() / "out", {}));
  EXPECT_TRUE(model_.is_in(scratch.path() / "out"));
}

TEST_F(TransfersTest, PacksAndAnchorsGoUpTogetherAndBeforeTheCommit) {
  const auto repository = open(remote_);
  make_small(*repository);
  ASSERT_TRUE(publish(*repository));
  EXPECT_GE(remote_->most_in_flight(), 3U) << "anchor objects";
  for (const bool anchor : {false, true}) {
    as_bucket(*repository).tuning.path_objects = anchor ? 1 : 64;
    as_bucket(*repository).tuning.inline_objects = 1;
    remote_->clear();
    const auto report = publish(*repository);
    ASSERT_TRUE(report);
    const auto requests = remote_->requests("create");
    ASSERT_GE(requests.size(), 3U);
    EXPECT_EQ(requests.back().name, commit_name(report->version.id.seq));
    EXPECT_GE(remote_->most_in_flight(), 2U);
  }
  VerifyOptions verify;
  verify.data = true;
  EXPECT_TRUE(repository->verify(verify)->problems.empty());
}

TEST_F(TransfersTest, FailedUploadMakesNoVersion) {
  const auto repository = open(remote_);
  make_small(*repository);
  ASSERT_TRUE(publish(*repository));
  remote_->on_create = [](std::string_view name) -> Status {
    if (name.starts_with("obj/")) return Error{Code::kIo, "no space left"};
    return {};
  };
  const auto failed = publish(*repository);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kIo);
  EXPECT_FALSE(memory_->size_bytes(commit_name(1)));
  remote_->on_create = nullptr;
  const auto again = publish(*repository);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->version.id.seq, 1U);
}

TEST_F(TransfersTest, UploadsStayWithinTransfersAndMemory) {
  constexpr uint64_t kBytes = 1000;
  Uploads uploads(*remote_, 3 * kBytes);
  const std::vector<std::byte> content(kBytes);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(uploads.add(kBytes, [&, i] {
      return remote_->create("obj/" + std::to_string(i), PiecesSource({content}));
    }));
  }
  ASSERT_TRUE(uploads.finish());
  EXPECT_EQ(remote_->count("create"), 20U);
  EXPECT_LE(remote_->most_bytes_in_flight(), 3 * kBytes);
  EXPECT_GE(remote_->most_in_flight(), 2U);
  // The first error is the one that counts, and what waits behind it is not begun.
  Uploads failing(*remote_, 100 * kBytes);
  Status status;
  for (int i = 0; i < 50 && status; ++i)
    status = failing.add(kBytes, [&] { return remote_->create("obj/0", PiecesSource({content})); });
  EXPECT_EQ(failing.finish().error().code, Code::kConflict);
  failing.cancel();
  EXPECT_TRUE(failing.finish());
}

TEST_F(TransfersTest, ReplicaFetchesAllItsVersionsTogether) {
  publish_locally(1);
  const auto repository = open(remote_);
  TinyModel held = model_;
  auto replica = *Replica::adopt(held.views(), *repository->head("main"));
  publish_locally(7);
  const Version head = *repository->head("main");
  remote_->clear();
  auto staged = replica->stage(*repository, head, {});
  ASSERT_TRUE(staged) << staged.error().message;
  EXPECT_EQ(remote_->count("size"), 0U);
  EXPECT_EQ(remote_->count("read"), 7U);
  EXPECT_LE(remote_->most_in_flight(), kTransfers);
  EXPECT_GE(remote_->most_in_flight(), 4U);
  ASSERT_TRUE(replica->commit(*std::move(staged)).status);
  EXPECT_EQ(held, model_);
}

// Packs that do not stay in memory are indexed while they pass by: no request for each section.
TEST_F(TransfersTest, PacksBeyondTheMemoryAreIndexedAsTheyPass) {
  publish_locally(1);
  std::mt19937_64 random(5);
  for (std::byte& byte : model_.tensors.back().bytes) byte ^= static_cast<std::byte>(random());
  publish_locally(1);
  const auto repository = open(remote_);
  const Commit link = *as_bucket(*repository).history().read("main", 1);
  const auto tensors = *repository->tensors(link.version());
  const uint64_t bytes = link.find(ArtifactKind::kDelta)->bytes;
  const auto kept = *Chain::load(remote_, {link}, tensors, {1, bytes});
  remote_->clear();
  const Result<std::unique_ptr<const Chain>> loaded =
      Chain::load(remote_, {link}, tensors, {1, bytes - 1});
  ASSERT_TRUE(loaded) << loaded.error().message;
  const std::unique_ptr<const Chain>& chain = *loaded;
  EXPECT_EQ(remote_->count(), 1U);
  EXPECT_EQ(chain->transfers(), kTransfers);
  EXPECT_EQ(kept->transfers(), 0U);
  for (size_t t = 0; t < tensors.size(); ++t) {
    ASSERT_EQ(chain->pieces(t).size(), kept->pieces(t).size());
    for (size_t i = 0; i < kept->pieces(t).size(); ++i) {
      std::vector<std::byte> read;
      std::vector<std::byte> unused;
      ASSERT_TRUE(chain->read(chain->pieces(t)[i], &read));
      EXPECT_TRUE(std::ranges::equal(read, *kept->read(kept->pieces(t)[i], &unused)));
    }
  }
  EXPECT_GT(remote_->count(), 1U);
  // A replica with so little memory stages the same words.
  TinyModel copy;
  LoadOptions little;
  little.memory_bytes = 4 * (bytes - 1);
  ASSERT_TRUE(repository->load(link.version(), copy.views(), little));
  EXPECT_EQ(copy, model_);
}

TEST_F(TransfersTest, OneVersionCostsAFollowerThreeRequests) {
  publish_locally(2);
  const auto repository = open(remote_);
  TinyModel held = model_;
  auto replica = *Replica::adopt(held.views(), *repository->head("main"));
  for (int i = 0; i < 3; ++i) {
    publish_locally(1);
    remote_->clear();
    const Version head = *repository->head("main");
    auto staged = replica->stage(*repository, head, {});
    ASSERT_TRUE(staged);
    ASSERT_TRUE(replica->commit(*std::move(staged)).status);
  }
  Lines kinds;
  for (const RemoteStore::Request& request : remote_->requests())
    kinds.push_back(request.operation + " " + request.name.substr(0, 4));
  EXPECT_EQ(kinds, Lines({"read_all log/", "read_all log/", "read obj/"}));
}

TEST_F(TransfersTest, AnAnchorIsReadOnce) {
  const auto local = open(memory_);
  make_small(*local);
  ASSERT_TRUE(publish(*local));
  const uint64_t anchor_bytes = bytes_of("obj/");
  const auto repository = open(remote_);
  const Version version = *repository->head("main");
  const auto read_bytes = [&] {
    uint64_t bytes = 0;
    for (const RemoteStore::Request& request : remote_->requests("read")) bytes += request.bytes;
    return bytes;
  };
  const ScratchFolder scratch;
  remote_->clear();
  ASSERT_TRUE(repository->checkout(version, scratch.path() / "out", {}));
  EXPECT_TRUE(model_.is_in(scratch.path() / "out"));
  EXPECT_EQ(read_bytes(), anchor_bytes);
  EXPECT_EQ(remote_->count("size"), 0U);
  EXPECT_GE(remote_->most_in_flight(), 2U);
  EXPECT_LE(remote_->most_in_flight(), kTransfers);

  TinyModel loaded;
  remote_->clear();
  ASSERT_TRUE(repository->load(version, loaded.views(), {}));
  EXPECT_EQ(loaded, model_);
  EXPECT_EQ(read_bytes(), anchor_bytes);

  TinyModel held = model_;
  auto replica = *Replica::adopt(held.views(), version);
  remote_->clear();
  StageOptions repair;
  repair.repair = true;
  ASSERT_TRUE(replica->stage(*repository, version, repair));
  EXPECT_EQ(read_bytes(), anchor_bytes);
}

TEST_F(TransfersTest, PublisherWithoutItsBaseReadsTheBucketOnce) {
  const auto local = open(memory_);
  make_small(*local);
  ASSERT_TRUE(publish(*local));
  const uint64_t anchor_bytes = bytes_of("obj/");
  const auto repository = open(remote_);
  PublishOptions options;
  options.threads = 1;
  model_.step(77);
  remote_->clear();
  const auto report = repository->publish(*model_.checkpoint(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->kind, ArtifactKind::kDelta);
  uint64_t bytes = 0;
  for (const RemoteStore::Request& request : remote_->requests("read"))
    if (request.name.starts_with("obj/")) bytes += request.bytes;
  EXPECT_EQ(bytes, anchor_bytes);
  EXPECT_GE(remote_->most_in_flight(), 2U);
  const ScratchFolder scratch;
  ASSERT_TRUE(repository->checkout(report->version, scratch.path() / "out", {}));
  EXPECT_TRUE(model_.is_in(scratch.path() / "out"));
}

// Every byte of every anchor object, and every way to rebuild: the damaged object is named.
TEST_F(TransfersTest, DamageToAnAnchorIsNoticedOnTheWayAndNamed) {
  const auto local = open(memory_);
  make_small(*local);
  ASSERT_TRUE(publish(*local));
  const std::vector<ObjectInfo> objects = *memory_->list("obj/");
  ASSERT_TRUE(publish(*local));
  const auto quick = std::make_shared<RemoteStore>(memory_, kTransfers, std::chrono::seconds(0));
  for (const std::shared_ptr<Store>& store :
       {std::shared_ptr<Store>(memory_), std::shared_ptr<Store>(quick)}) {
    for (const ObjectInfo& object : objects) {
      const std::string content = *memory_->read_all(object.name, object.size_bytes);
      for (size_t at = 0; at < content.size(); at += 1 + content.size() / 97) {
        std::string damaged = content;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        ASSERT_TRUE(memory_->replace(object.name, as_bytes(damaged)));
        const auto repository = open(store);
        TinyModel loaded;
        for (const char* version : {"main@0", "main@1"}) {
          const auto report = repository->load(*repository->resolve(version), loaded.views(), {});
          ASSERT_FALSE(report) << object.name << " byte " << at;
          EXPECT_EQ(report.error().code, Code::kCorrupt) << report.error().message;
          EXPECT_NE(report.error().message.find(object.name), std::string::npos)
              << report.error().message;
        }
      }
      ASSERT_TRUE(memory_->replace(object.name, as_bytes(content)));
    }
  }
}

TEST_F(TransfersTest, FollowerWaitsInTheStore) {
  remote_->waits = true;
  publish_locally(1);
  const auto repository = open(remote_);
  TinyModel held = model_;
  auto replica = *Replica::adopt(held.views(), *repository->head("main"));
  FollowOptions options;
  options.until_seq = 2;
  options.interval_seconds = 0.001;
  remote_->on_wait = [&](std::string_view name) {
    EXPECT_EQ(name, commit_name(replica->version()->id.seq + 1));
    publish_locally(1);
  };
  uint64_t steps = 0;
  ASSERT_TRUE(follow(*replica, *repository, options, [&](const FollowStep&) {
    ++steps;
    return Status();
  }));
  EXPECT_EQ(steps, 2U);
  EXPECT_EQ(remote_->count("wait"), 2U);
  EXPECT_EQ(held, model_);
}

}  // namespace
}  // namespace siltstone
