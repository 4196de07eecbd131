// Fetching once, proving everything, keeping nothing that is not proven.
#include "relay/objects.h"

#include <gtest/gtest.h>

#include <fstream>
#include <latch>
#include <thread>

#include "published_bucket.h"
#include "repo/bucket.h"

namespace siltstone::relay {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kLimit = uint64_t{64} << 20;

class ObjectsTest : public ::testing::Test {
 protected:
  ObjectsTest() { start(); }
  ~ObjectsTest() override { bucket_.open_gate(); }

  void start(uint64_t limit_bytes = kLimit, unsigned transfers = 1) {
    objects_.reset();
    cache_.reset();
    cache_ = *Cache::open(folder_.path() / "cache", limit_bytes, metrics_);
    ObjectsOptions options;
    options.life = std::chrono::hours(1);
    options.ahead = {transfers, 100 * 1000};
    objects_.emplace(upstream_, *cache_, metrics_, options);
  }
  Result<std::string> read(const std::string& name) {
    return objects_->read(*parse_object_name(name));
  }
  Code failure(const std::string& name) {
    const Result<std::string> bytes = read(name);
    return bytes ? Code::kInternal : bytes.error().code;
  }
  std::vector<std::string> immutable() {
    std::vector<std::string> names = bucket_.names();
    std::erase_if(names, [](const std::string& name) { return name.starts_with("head/"); });
    return names;
  }
  std::string data() { return bucket_.names("obj/main/").back(); }
  uint64_t files_in(const char* folder) {
    const fs::directory_iterator files(folder_.path() / "cache" / folder);
    return static_cast<uint64_t>(std::distance(begin(files), end(files)));
  }

  PublishedBucket bucket_;
  test::ScratchFolder folder_;
  Metrics metrics_;
  Upstream upstream_{bucket_.store(), metrics_};
  std::unique_ptr<Cache> cache_;
  std::optional<Objects> objects_;
};

TEST_F(ObjectsTest, EveryObjectOnceHoweverManyAsk) {
  const std::string large = bucket_.add_file(1234567);
  const std::vector<std::string> names = immutable();
  std::vector<std::thread> readers;
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&, i] {
      for (size_t k = 0; k < names.size(); ++k) {
        const std::string& name = names[(k + i) % names.size()];
        const Result<std::string> bytes = read(name);
        ASSERT_TRUE(bytes) << name << ": " << bytes.error().message;
        EXPECT_EQ(*bytes, bucket_.content(name));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(metrics_.fetched_objects, names.size());
  uint64_t all = 0;
  for (const std::string& name : names) all += bucket_.content(name).size();
  EXPECT_EQ(metrics_.fetched_bytes, all);
  EXPECT_EQ(bucket_.count("read", large), 13);  // pieces
  EXPECT_EQ(files_in("arriving"), 0U);
}

TEST_F(ObjectsTest, SeveralPiecesInFlight) {
  start(kLimit, 4);
  const std::string large = bucket_.add_file(1234567);
  EXPECT_EQ(*read(large), bucket_.content(large));
  EXPECT_EQ(bucket_.count("read", large), 13);
}

TEST_F(ObjectsTest, NothingAfterARestartIsFetchedAgainOrTrusted) {
  const std::vector<std::string> names = immutable();
  for (const std::string& name : names) ASSERT_TRUE(read(name));
  start();
  bucket_.faults().on_operation({});
  const uint64_t before = metrics_.fetched_objects;
  for (const std::string& name : names) EXPECT_EQ(*read(name), bucket_.content(name)) << name;
  EXPECT_EQ(metrics_.fetched_objects, before + 1);  // repo.json: which repository this is
  EXPECT_EQ(metrics_.damaged_in_cache, 0U);
}

TEST_F(ObjectsTest, DamagedCacheFilesAreFetchedAgain) {
  const std::vector<std::string> names = immutable();
  for (int how = 0; how < 4; ++how) {
    for (const std::string& name : names) ASSERT_TRUE(read(name));
    if (how == 3) start(kLimit);
    for (const auto& file : fs::directory_iterator(folder_.path() / "cache/objects")) {
      if (how == 0) fs::resize_file(file.path(), fs::file_size(file.path()) - 1);
      if (how == 1) fs::resize_file(file.path(), fs::file_size(file.path()) + 1);
      if (how >= 2) std::fstream(file.path(), std::ios::in | std::ios::out).put('\1');
    }
    for (const std::string& name : names) EXPECT_EQ(*read(name), bucket_.content(name)) << name;
    EXPECT_GE(metrics_.damaged_in_cache.exchange(0), names.size() - 1);
  }
}

TEST_F(ObjectsTest, AnotherRepositorysCacheIsNotServed) {
  for (const std::string& name : immutable()) ASSERT_TRUE(read(name));
  PublishedBucket other;
  objects_.reset();
  cache_.reset();
  cache_ = *Cache::open(folder_.path() / "cache", kLimit, metrics_);
  Upstream upstream(other.store(), metrics_);
  Objects objects(upstream, *cache_, metrics_, {});
  for (const std::string& name : other.names("log/")) {
    EXPECT_EQ(*objects.read(*parse_object_name(name)), other.content(name)) << name;
  }
}

TEST_F(ObjectsTest, DamageInTheStoreIsNeverWhole) {
  for (const std::string& name : immutable()) {
    start();
    fs::remove_all(folder_.path() / "cache/objects");
    fs::create_directory(folder_.path() / "cache/objects");
    start();
    const std::string good = bucket_.content(name);
    metrics_.damaged_in_store = 0;
    bucket_.damage(name);
    EXPECT_EQ(failure(name), Code::kCorrupt) << name;
    EXPECT_EQ(metrics_.damaged_in_store, 1U) << name;
    EXPECT_FALSE(cache_->find(name).file);
    EXPECT_EQ(files_in("arriving"), 0U);
    bucket_.overwrite(name, good.substr(0, good.size() - 1));
    EXPECT_NE(failure(name), Code::kInternal) << name;
    bucket_.overwrite(name, good);
    EXPECT_EQ(*read(name), good) << name;  // the next attempt is a new one
  }
}

TEST_F(ObjectsTest, BytesAreServedWhileTheyArriveButForTheLast) {
  const std::string name = bucket_.add_file(350000);
  bucket_.close_gate(name, 1 + 3);  // its size, three pieces of four
  const Cache::Found found = objects_->open(*parse_object_name(name));
  std::latch half(1);
  if (!found.entry->when(Entry::kLengthKnown + 200000, [&] { half.count_down(); }))
    half.count_down();
  half.wait();
  Entry::View view = found.entry->view();
  EXPECT_EQ(view.state, Entry::State::kArriving);
  EXPECT_EQ(view.length_bytes, 350000U);
  EXPECT_LE(view.available_bytes, 350000 - kHeldBackBytes);
  std::vector<std::byte> some(1000);
  ASSERT_TRUE(view.file->read_at(199000, some));
  EXPECT_EQ(as_text(some), bucket_.content(name).substr(199000, 1000));
  bucket_.open_gate();
  found.entry->wait_until_done();
  EXPECT_EQ(found.entry->view().available_bytes, 350000U);
}

TEST_F(ObjectsTest, TheLastBytesOfADamagedObjectAreNeverAvailable) {
  const std::string name = bucket_.add_file(350000);
  bucket_.damage(name);
  const Cache::Found found = objects_->open(*parse_object_name(name));
  found.entry->wait_until_done();
  const Entry::View view = found.entry->view();
  EXPECT_EQ(view.state, Entry::State::kFailed);
  EXPECT_LE(view.available_bytes, 350000 - kHeldBackBytes);
  EXPECT_EQ(cache_->use().objects, 0U);
}

TEST_F(ObjectsTest, DataThatNoCommitNamesIsAbsent) {
  const std::string stray = data().substr(0, data().rfind('/')) + "/9-9.safetensors";
  bucket_.overwrite(stray, "anything");
  EXPECT_EQ(failure(stray), Code::kNotFound);
  const std::string lost = attempt_prefix("main", 1, 1, std::string(32, 'a')) + "0-0.safetensors";
  bucket_.overwrite(lost, "of an attempt that lost");
  EXPECT_EQ(failure(lost), Code::kNotFound);
  EXPECT_EQ(failure(attempt_prefix("main", 1, 77, std::string(32, 'a')) + "0-0.safetensors"),
            Code::kNotFound);
  EXPECT_EQ(bucket_.count("read", stray), 0);
}

TEST_F(ObjectsTest, ListsOfACommitNameObjectsToo) {
  as_bucket(bucket_.repository()).tuning.inline_objects = 0;
  bucket_.publish();
  bool listed = false;
  for (const std::string& name : bucket_.names("obj/main/")) {
    EXPECT_EQ(*read(name), bucket_.content(name)) << name;
    listed |= name.find("/list-") != name.npos;
  }
  EXPECT_TRUE(listed);
}

TEST_F(ObjectsTest, AbsenceIsLookedAtOnce) {
  const std::string next = commit_key("main", 2);
  ASSERT_TRUE(read(commit_key("main", 1)));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(failure(next), Code::kNotFound);
  EXPECT_EQ(failure(commit_key("main", 5)), Code::kNotFound);
  EXPECT_EQ(bucket_.count("size", next), 1);
  EXPECT_EQ(bucket_.count("size", commit_key("main", 5)), 0);
  bucket_.publish();
  EXPECT_EQ(failure(next), Code::kNotFound);             // knowledge of this hour
  EXPECT_TRUE(*objects_->look(commit_name("main", 2)));  // what the watcher does
  EXPECT_TRUE(read(next));
}

TEST_F(ObjectsTest, HintsLiveShortly) {
  const ObjectName head = *parse_object_name("head/main.json");
  const Cache::Found first = objects_->open(head);
  first.entry->wait_until_done();
  EXPECT_EQ(*first.entry->view().content, bucket_.content(head.text));
  EXPECT_EQ(objects_->open(head).entry, first.entry);
  objects_->open(*parse_object_name("head/none.json")).entry->wait_until_done();
  EXPECT_EQ(cache_->use().objects, 0U);
}

TEST_F(ObjectsTest, AStoreThatFailsIsAskedAgain) {
  for (const Fault fault : {Fault::kFailBefore, Fault::kWrongBytes, Fault::kShortRead}) {
    for (uint64_t at = 0; at < 8; ++at) {
      fs::remove_all(folder_.path() / "cache/objects");
      fs::create_directory(folder_.path() / "cache/objects");
      start();
      bucket_.faults().fail_at(at, fault);
      const Result<std::string> bytes = read(data());
      EXPECT_TRUE(!bytes || *bytes == bucket_.content(data()));
      bucket_.faults().heal();
      EXPECT_EQ(*read(data()), bucket_.content(data()));
      EXPECT_FALSE(upstream_.trouble());
    }
  }
}

TEST_F(ObjectsTest, RecordsAreServedWhenTheDiskIsFull) {
  const std::string file = bucket_.add_file(100000);
  start(0);  // no room at all
  EXPECT_EQ(*read(commit_key("main", 0)), bucket_.content(commit_key("main", 0)));
  EXPECT_EQ(failure(file), Code::kUnavailable);
  EXPECT_EQ(files_in("arriving"), 0U);
  EXPECT_EQ(cache_->use().bytes, 0U);
}

TEST_F(ObjectsTest, StopsInTheMiddleOfAnObject) {
  const std::string name = bucket_.add_file(350000);
  bucket_.close_gate(name, 2);
  const Cache::Found found = objects_->open(*parse_object_name(name));
  std::latch begun(1);
  if (!found.entry->when(Entry::kLengthKnown + 1, [&] { begun.count_down(); })) begun.count_down();
  begun.wait();
  EXPECT_FALSE(objects_->stop(Clock::now()));  // the store holds a call
  bucket_.open_gate();
  EXPECT_TRUE(objects_->stop(Clock::now() + std::chrono::hours(1)));
  EXPECT_EQ(found.entry->view().state, Entry::State::kFailed);
  EXPECT_EQ(files_in("arriving"), 0U);
}

}  // namespace
}  // namespace siltstone::relay
