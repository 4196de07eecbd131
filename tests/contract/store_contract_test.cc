#include "contract/store_contract.h"

#include <array>
#include <barrier>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "base/files.h"
#include "store/faulty.h"
#include "store/local.h"
#include "store/memory.h"

namespace siltstone {

std::string StoreContract::content_of(Store& store, std::string_view name) {
  const Result<uint64_t> size = store.size_bytes(name);
  if (!size) return "<" + outcome(size) + ">";
  std::string out(*size, '?');
  const Status got = store.read(name, 0, std::as_writable_bytes(std::span(out)));
  return got ? out : "<" + outcome(got) + ">";
}

std::string StoreContract::listing(std::string_view prefix) {
  const Result<std::vector<ObjectInfo>> objects = store_->list(prefix);
  if (!objects) return "<" + outcome(objects) + ">";
  std::string out;
  for (const ObjectInfo& object : *objects) {
    out += (out.empty() ? "" : " ") + object.name + ":" + std::to_string(object.size_bytes);
  }
  return out;
}

namespace {

TestBucket memory_bucket() {
  const std::string name = unique_name("contract-");
  return {.open = [name] { return *open_store("mem://" + name); }};
}

TestBucket directory_bucket() {
  auto folder = std::make_shared<ScratchFolder>();
  return {.open = [folder] { return *open_store((folder->path() / "bucket").string()); }};
}

TestBucket faulty_bucket() {
  auto inner = std::make_shared<MemoryStore>("mem://inner");
  return {.open = [inner] { return std::make_shared<FaultyStore>(inner); }};
}

// Of the server that tests/servers/run.py names, in its bucket "contract".
TestBucket s3_bucket() {
  const std::string url =
      "s3://contract/" + unique_name("") + "?endpoint=" + std::getenv("SILTSTONE_TEST_S3_ENDPOINT");
  return {.open = [url] { return *open_store(url); }};
}

// One line for each store.
std::vector<StoreCase> stores() {
  if (std::getenv("SILTSTONE_TEST_S3_ENDPOINT") != nullptr) return {{"S3", s3_bucket}};
  return {
      {"Memory", memory_bucket}, {"Directory", directory_bucket}, {"FaultyUnarmed", faulty_bucket}};
}

INSTANTIATE_TEST_SUITE_P(Every, StoreContract, testing::ValuesIn(stores()),
                         [](const auto& store) { return store.param.name; });

TEST_P(StoreContract, KeepsWhatIsCreated) {
  EXPECT_EQ(outcome(create("log/main/0.json", "first")), "ok");
  EXPECT_EQ(content("log/main/0.json"), "first");
  EXPECT_EQ(content_of(*bucket_.open(), "log/main/0.json"), "first");
}

TEST_P(StoreContract, RefusesToCreateTwiceAndKeepsTheFirst) {
  ASSERT_EQ(outcome(create("a/b", "first")), "ok");
  const Status again = create("a/b", "second, longer");
  ASSERT_EQ(outcome(again), "conflict");
  EXPECT_NE(again.error().message.find("'a/b'"), std::string::npos) << again.error().message;
  EXPECT_EQ(outcome(bucket_.open()->create("a/b", SpanSource("third"))), "conflict");
  EXPECT_EQ(content("a/b"), "first");
}

TEST_P(StoreContract, ReportsAbsentObjects) {
  std::array<std::byte, 1> byte;
  ASSERT_EQ(outcome(create("a/b", "x")), "ok");
  for (const std::string name : {"missing", "a", "a/c", "a/b/c", "z/y/x"}) {
    EXPECT_EQ(outcome(store_->size_bytes(name)), "not found") << name;
    EXPECT_EQ(outcome(store_->read(name, 0, byte)), "not found") << name;
    EXPECT_EQ(outcome(store_->read(name, 0, {})), "not found") << name;
    EXPECT_EQ(outcome(store_->remove(name)), "ok") << name;
  }
  const Result<uint64_t> missing = store_->size_bytes("missing");
  EXPECT_NE(missing.error().message.find("'missing'"), std::string::npos);
}

TEST_P(StoreContract, KeepsEmptyObjects) {
  EXPECT_EQ(outcome(create("empty", "")), "ok");
  EXPECT_EQ(outcome(create("empty", "")), "conflict");
  EXPECT_EQ(content("empty"), "");
  EXPECT_EQ(outcome(store_->read("empty", 0, {})), "ok");
  EXPECT_EQ(outcome(store_->read("empty", 1, {})), "corrupt");
  EXPECT_EQ(listing(""), "empty:0");
}

TEST_P(StoreContract, ReadsRanges) {
  ASSERT_EQ(outcome(create("ten", "0123456789")), "ok");
  const auto range = [&](uint64_t offset_bytes, size_t length_bytes) {
    std::string out(length_bytes, '?');
    const Status got = store_->read("ten", offset_bytes, std::as_writable_bytes(std::span(out)));
    return got ? out : "<" + outcome(got) + ">";
  };
  EXPECT_EQ(range(0, 1), "0");
  EXPECT_EQ(range(0, 10), "0123456789");
  EXPECT_EQ(range(3, 4), "3456");
  EXPECT_EQ(range(9, 1), "9");
  EXPECT_EQ(range(10, 0), "");
  EXPECT_EQ(range(0, 11), "<corrupt>");
  EXPECT_EQ(range(9, 2), "<corrupt>");
  EXPECT_EQ(range(10, 1), "<corrupt>");
  EXPECT_EQ(range(11, 0), "<corrupt>");
  EXPECT_EQ(range(UINT64_MAX, 1), "<corrupt>");
  EXPECT_EQ(range(UINT64_MAX - 1, 4), "<corrupt>");
}

TEST_P(StoreContract, NamesTheObjectAndBothLengthsWhenItIsTooShort) {
  ASSERT_EQ(outcome(create("ten", "0123456789")), "ok");
  std::array<std::byte, 7> out;
  const Status got = store_->read("ten", 5, out);
  ASSERT_EQ(outcome(got), "corrupt");
  for (const char* part : {"'ten'", "expected 7 bytes from byte 5", "found 10 bytes"}) {
    EXPECT_NE(got.error().message.find(part), std::string::npos) << got.error().message;
  }
}

TEST_P(StoreContract, ReplacesHints) {
  EXPECT_EQ(outcome(replace("head/main.json", "one")), "ok");
  EXPECT_EQ(content("head/main.json"), "one");
  EXPECT_EQ(outcome(replace("head/main.json", "longer than one")), "ok");
  EXPECT_EQ(content("head/main.json"), "longer than one");
  EXPECT_EQ(outcome(replace("head/main.json", "")), "ok");
  EXPECT_EQ(content("head/main.json"), "");
  EXPECT_EQ(outcome(create("head/main.json", "x")), "conflict");
  EXPECT_EQ(listing(""), "head/main.json:0");
}

TEST_P(StoreContract, RemovesAndCreatesAgain) {
  ASSERT_EQ(outcome(create("a/b/c", "first")), "ok");
  ASSERT_EQ(outcome(create("a/b/d", "other")), "ok");
  EXPECT_EQ(outcome(store_->remove("a/b/c")), "ok");
  EXPECT_EQ(outcome(store_->remove("a/b/c")), "ok");
  EXPECT_EQ(content("a/b/c"), "<not found>");
  EXPECT_EQ(listing(""), "a/b/d:5");
  EXPECT_EQ(outcome(create("a/b/c", "second")), "ok");
  EXPECT_EQ(content("a/b/c"), "second");
}

TEST_P(StoreContract, ListsByPrefixInOrderOfNames) {
  EXPECT_EQ(listing(""), "");
  EXPECT_EQ(listing("log/"), "");
  for (const char* name : {"log/main/2", "log/main/10", "log/main/1", "log/main-old/1", "log/m",
                           "logs", "log-x", "repo.json", "obj/a/b/c/d/e/f"}) {
    ASSERT_EQ(outcome(create(name, name)), "ok") << name;
  }
  EXPECT_EQ(listing(""),
            "log-x:5 log/m:5 log/main-old/1:14 log/main/1:10 log/main/10:11 log/main/2:10 logs:4 "
            "obj/a/b/c/d/e/f:15 repo.json:9");
  EXPECT_EQ(listing("log/main/"), "log/main/1:10 log/main/10:11 log/main/2:10");
  EXPECT_EQ(listing("log/main/1"), "log/main/1:10 log/main/10:11");
  EXPECT_EQ(listing("log/main"), "log/main-old/1:14 log/main/1:10 log/main/10:11 log/main/2:10");
  EXPECT_EQ(listing("log/m"),
            "log/m:5 log/main-old/1:14 log/main/1:10 log/main/10:11 log/main/2:10");
  EXPECT_EQ(listing("obj/a/b/c/d/e/"), "obj/a/b/c/d/e/f:15");
  EXPECT_EQ(listing("repo.json"), "repo.json:9");
  EXPECT_EQ(listing("repo.json/"), "");
  EXPECT_EQ(listing("nothing/here/"), "");
  EXPECT_EQ(listing("."), "");
}

const std::string kLong128(128, 'a');

TEST_P(StoreContract, TakesEveryLegalName) {
  const std::string component(128, 'b');
  const std::string longest =
      component + "/" + component + "/" + component + "/" + component.substr(3);
  ASSERT_EQ(longest.size(), 512U);
  const std::vector<std::string> legal = {"a",
                                          "0",
                                          "-",
                                          "_",
                                          "...",
                                          ".a",
                                          "a.",
                                          "..a",
                                          ".tmp/x",
                                          "a-b_c.d",
                                          "log/main/0.json",
                                          kLong128,
                                          "x/b/c/d/e/f/g",
                                          longest};
  for (const std::string& name : legal) {
    EXPECT_TRUE(is_object_name(name)) << name;
    EXPECT_EQ(outcome(create(name, name)), "ok") << name;
  }
  for (const std::string& name : legal) EXPECT_EQ(content(name), name);
  EXPECT_EQ(store_->list("")->size(), legal.size());
}

TEST_P(StoreContract, RefusesEveryIllegalName) {
  using std::string_literals::operator""s;
  const std::vector<std::string> illegal = {
      "",
      ".",
      "..",
      "/",
      "/a",
      "a/",
      "a//b",
      "./a",
      "a/.",
      "../a",
      "a/../b",
      "a/..",
      "A",
      "a b",
      "a\\b",
      "a\0b"s,
      "a\nb",
      "caf\xc3\xa9",
      "a:b",
      "a~",
      ".tmp~/x",
      "a%2e",
      "*",
      kLong128 + "a",
      "a/b/c/d/e/f/g/h",
      kLong128 + "/" + kLong128 + "/" + kLong128 + "/" + kLong128.substr(0, 126)};
  for (const std::string& name : illegal) {
    std::array<std::byte, 1> byte;
    EXPECT_FALSE(is_object_name(name)) << name;
    EXPECT_EQ(outcome(create(name, "x")), "invalid argument") << name;
    EXPECT_EQ(outcome(replace(name, "x")), "invalid argument") << name;
    EXPECT_EQ(outcome(store_->size_bytes(name)), "invalid argument") << name;
    EXPECT_EQ(outcome(store_->read(name, 0, byte)), "invalid argument") << name;
    EXPECT_EQ(outcome(store_->remove(name)), "invalid argument") << name;
  }
  EXPECT_EQ(listing(""), "");
}

TEST_P(StoreContract, RefusesPrefixesOfNoName) {
  for (const std::string prefix :
       {"/", "../", "a//", "./", "a/../b", "A", "a b", "a/b/c/d/e/f/g/"}) {
    EXPECT_EQ(listing(prefix), "<invalid argument>") << prefix;
  }
}

TEST_P(StoreContract, LeavesNothingWhenTheSourceFails) {
  constexpr uint64_t kSizeBytes = 9 << 20;
  for (const uint64_t fail_from_bytes : {uint64_t{0}, uint64_t{5} << 20, kSizeBytes - 1}) {
    const Status got = store_->create("a/b", PatternSource(1, kSizeBytes, fail_from_bytes));
    EXPECT_EQ(outcome(got), "device");
    EXPECT_NE(got.error().message.find("the source broke"), std::string::npos);
    EXPECT_EQ(content("a/b"), "<not found>");
    EXPECT_EQ(listing(""), "");
  }
  EXPECT_EQ(outcome(create("a/b", "whole")), "ok");
  EXPECT_EQ(content("a/b"), "whole");
}

TEST_P(StoreContract, StreamsLargeObjects) {
  constexpr uint64_t kSizeBytes = (64 << 20) + 13;
  constexpr uint64_t kSeed = 5;
  const PatternSource source(kSeed, kSizeBytes);
  ASSERT_EQ(outcome(store_->create("large", source)), "ok");
  EXPECT_LE(source.largest_read_bytes(), kMaxPieceBytes);
  EXPECT_EQ(*store_->size_bytes("large"), kSizeBytes);
  std::vector<std::byte> piece((3 << 20) + 7);
  uint64_t wrong_bytes = 0;
  for (uint64_t done = 0; done < kSizeBytes; done += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), kSizeBytes - done));
    ASSERT_EQ(outcome(store_->read("large", done, piece)), "ok") << done;
    for (size_t i = 0; i < piece.size(); ++i) {
      wrong_bytes += piece[i] != PatternSource::at(kSeed, done + i);
    }
  }
  EXPECT_EQ(wrong_bytes, 0U);
}

TEST_P(StoreContract, LetsExactlyOneOfManyCreatorsWin) {
  constexpr int kThreads = 16;
  constexpr int kRounds = 200;
  std::barrier line(kThreads);
  std::array<std::atomic<int>, kRounds> winners{};
  std::array<std::atomic<int>, kRounds> winner_of{};
  std::atomic<int> surprises{0};
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const std::shared_ptr<Store> store = thread % 2 == 0 ? store_ : bucket_.open();
      for (int round = 0; round < kRounds; ++round) {
        const std::string name = "log/main/" + std::to_string(round);
        const std::string text = "created by " + std::to_string(thread);
        line.arrive_and_wait();
        const Status got = store->create(name, SpanSource(text));
        if (got) {
          ++winners[round];
          winner_of[round] = thread;
        } else if (got.error().code != Code::kConflict) {
          ++surprises;
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(surprises, 0);
  for (int round = 0; round < kRounds; ++round) {
    EXPECT_EQ(winners[round], 1) << round;
    EXPECT_EQ(content("log/main/" + std::to_string(round)),
              "created by " + std::to_string(winner_of[round]));
  }
}

TEST_P(StoreContract, ShowsConcurrentReadersNothingOrAllOfAnObject) {
  constexpr int kObjects = 60;
  constexpr uint64_t kSizeBytes = 300'000;
  std::atomic<bool> done{false};
  std::atomic<int> torn{0};
  std::atomic<int> seen{0};
  const auto watch = [&] {
    const std::shared_ptr<Store> store = bucket_.open();
    std::vector<std::byte> bytes(kSizeBytes);
    while (!done) {
      const Result<std::vector<ObjectInfo>> objects = store->list("obj/");
      if (!objects) ++torn;
      for (const ObjectInfo& object : objects ? *objects : std::vector<ObjectInfo>()) {
        const uint64_t seed = std::stoull(object.name.substr(4));
        if (object.size_bytes != kSizeBytes || !store->read(object.name, 0, bytes)) {
          ++torn;
          continue;
        }
        ++seen;
        for (uint64_t i = 0; i < kSizeBytes; i += 997) {
          if (bytes[i] != PatternSource::at(seed, i)) ++torn;
        }
      }
    }
  };
  {
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 3; ++reader) readers.emplace_back(watch);
    for (int i = 0; i < kObjects; ++i) {
      EXPECT_EQ(outcome(store_->create("obj/" + std::to_string(i), PatternSource(i, kSizeBytes))),
                "ok");
    }
    while (seen == 0 && torn == 0) std::this_thread::yield();
    done = true;
  }
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(store_->list("obj/")->size(), size_t{kObjects});
}

TEST_P(StoreContract, ShowsConcurrentReadersTheOldOrTheNewHint) {
  const std::string old_text(5000, 'o');
  const std::string new_text(5000, 'n');
  ASSERT_EQ(outcome(replace("head/main.json", old_text)), "ok");
  std::atomic<bool> done{false};
  std::atomic<int> torn{0};
  std::atomic<int> reads{0};
  {
    std::jthread reader([&] {
      while (!done) {
        const std::string text = content("head/main.json");
        if (text != old_text && text != new_text) ++torn;
        ++reads;
      }
    });
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(outcome(replace("head/main.json", i % 2 == 0 ? new_text : old_text)), "ok");
    }
    while (reads == 0) std::this_thread::yield();
    done = true;
  }
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace siltstone
