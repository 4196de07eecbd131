// The directory store with several processes: racing ones, and ones killed at random moments.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "contract/store_contract.h"
#include "store/local.h"
#include "unit/store/child.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

// Memory that forked processes share.
template <class T>
class Shared {
 public:
  Shared()
      : at_(static_cast<T*>(::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    new (at_) T();
  }
  ~Shared() { ::munmap(at_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T* operator->() const { return at_; }

 private:
  T* at_;
};

TEST(LocalStoreProcesses, ExactlyOneProcessCreatesEachObject) {
  constexpr int kProcesses = 4;
  constexpr int kKeys = 50;
  struct Tally {
    std::atomic<int> arrived;
    std::array<std::atomic<int>, kKeys> winners;
    std::array<std::atomic<int>, kKeys> winner_of;
  };
  const Shared<Tally> tally;
  const ScratchFolder scratch;
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    children.push_back(start_child([&, process] {
      const auto store = LocalStore::open(scratch.path() / "bucket");
      if (!store) return 2;
      for (int key = 0; key < kKeys; ++key) {
        ++tally->arrived;
        while (tally->arrived < kProcesses * (key + 1)) std::this_thread::yield();
        // A folder of its own for each key, so that its creation is raced for too.
        const std::string name = "log/" + std::to_string(key) + "/x";
        const std::string text = "process " + std::to_string(process);
        const Status got = (*store)->create(name, SpanSource(text));
        if (!got && got.error().code != Code::kConflict) return 3;
        if (!got) continue;
        ++tally->winners[key];
        tally->winner_of[key] = process;
      }
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  const auto store = *LocalStore::open(scratch.path() / "bucket");
  for (int key = 0; key < kKeys; ++key) {
    EXPECT_EQ(tally->winners[key], 1) << key;
    std::string text(9, '?');
    const std::string name = "log/" + std::to_string(key) + "/x";
    EXPECT_EQ(outcome(store->read(name, 0, std::as_writable_bytes(std::span(text)))), "ok");
    EXPECT_EQ(text, "process " + std::to_string(tally->winner_of[key]));
  }
}

constexpr uint64_t kObjectBytes = uint64_t{3} << 20;

// Objects of the bucket; fails the test if one is not whole.
size_t check_whole(LocalStore& store) {
  const auto objects = store.list("");
  EXPECT_EQ(outcome(objects), "ok");
  std::vector<std::byte> bytes(kObjectBytes);
  for (const ObjectInfo& object : *objects) {
    EXPECT_EQ(object.size_bytes, kObjectBytes) << object.name;
    EXPECT_EQ(outcome(store.read(object.name, 0, bytes)), "ok") << object.name;
    const uint64_t seed = std::stoull(object.name.substr(4));
    uint64_t wrong_bytes = 0;
    for (uint64_t i = 0; i < kObjectBytes; ++i) {
      wrong_bytes += bytes[i] != PatternSource::at(seed, i);
    }
    EXPECT_EQ(wrong_bytes, 0U) << object.name;
  }
  return objects->size();
}

uint64_t microseconds_of_one_create() {
  const ScratchFolder scratch;
  const auto store = *LocalStore::open(scratch.path() / "bucket");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(outcome(store->create("obj/0", PatternSource(0, kObjectBytes))), "ok");
  const auto spent = std::chrono::steady_clock::now() - begin;
  return static_cast<uint64_t>(
      std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::microseconds>(spent).count()));
}

TEST(LocalStoreProcesses, AKilledWriterLeavesWholeObjectsOrNone) {
  constexpr int kRounds = 50;
  std::mt19937 random(20'240'601);
  const uint64_t create_us = microseconds_of_one_create();
  size_t objects = 0;
  size_t interrupted = 0;
  for (int round = 0; round < kRounds; ++round) {
    const ScratchFolder scratch;
    const fs::path root = scratch.path() / "bucket";
    const Shared<std::atomic<uint64_t>> acknowledged;
    const pid_t child = start_child([&] {
      const auto store = *LocalStore::open(root);
      for (uint64_t i = 0;; ++i) {
        if (!store->create("obj/" + std::to_string(i), PatternSource(i, kObjectBytes))) return 1;
        acknowledged->store(i + 1);
      }
    });
    // Some four objects' time, so that kills fall anywhere in a creation, be it slow or fast here.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % (4 * create_us)));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(wait_for(child), 128 + SIGKILL);
    const auto store = *LocalStore::open(root);
    const size_t found = check_whole(*store);
    EXPECT_GE(found, acknowledged->load());
    EXPECT_LE(found, acknowledged->load() + 1);
    objects += found;
    std::error_code none;
    interrupted +=
        std::distance(fs::directory_iterator(root / LocalStore::kTemporaryFolder, none), {}) > 0;
    // What was interrupted can be done again.
    const uint64_t next = found;
    EXPECT_EQ(
        outcome(store->create("obj/" + std::to_string(next), PatternSource(next, kObjectBytes))),
        "ok");
  }
  EXPECT_GT(objects, 0U);
  EXPECT_GT(interrupted, 0U) << "no writer was killed while it wrote: this shows nothing";
}

}  // namespace
}  // namespace siltstone
