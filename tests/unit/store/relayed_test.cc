#include "store/relayed.h"

#include <gtest/gtest.h>

#include "contract/store_contract.h"
#include "store/faulty.h"
#include "store/memory.h"

namespace siltstone {
namespace {

class RelayedStoreTest : public testing::Test {
 protected:
  RelayedStoreTest() {
    EXPECT_TRUE(origin_->create("obj/both", SpanSource("store")));
    EXPECT_TRUE(origin_->create("obj/new", SpanSource("store")));
    EXPECT_TRUE(origin_->create("log/main/1", SpanSource("store")));
    EXPECT_TRUE(near_->create("obj/both", SpanSource("relay")));
  }

  std::string content(std::string_view name) {
    const Result<std::string> found = store_.read_all(name, 100);
    return found ? *found : "<" + outcome(found) + ">";
  }

  std::shared_ptr<MemoryStore> origin_ = std::make_shared<MemoryStore>("mem://origin");
  std::shared_ptr<MemoryStore> near_ = std::make_shared<MemoryStore>("mem://near");
  std::shared_ptr<FaultyStore> relay_ = std::make_shared<FaultyStore>(near_);
  RelayedStore store_{relay_, origin_};
};

TEST_F(RelayedStoreTest, ReadsWhatTheRelayHasThere) {
  EXPECT_EQ(content("obj/both"), "relay");
  EXPECT_EQ(store_.url(), "mem://origin");
}

TEST_F(RelayedStoreTest, AsksTheStoreForPromisedObjectsThatTheRelayLacks) {
  EXPECT_EQ(content("obj/new"), "store");
}

TEST_F(RelayedStoreTest, BelievesTheRelayThatAVersionIsNotThereYet) {
  EXPECT_EQ(content("log/main/1"), "<not found>");
  EXPECT_EQ(outcome(store_.size_bytes("repo.json")), "not found");
}

TEST_F(RelayedStoreTest, LeavesARelayAloneThatDoesNotAnswer) {
  relay_->fail_at(0, Fault::kFailBefore);
  EXPECT_EQ(content("obj/both"), "store");
  const uint64_t asked = relay_->operations();
  EXPECT_EQ(content("obj/both"), "store");
  EXPECT_EQ(content("log/main/1"), "store");
  EXPECT_EQ(relay_->operations(), asked);
  EXPECT_FALSE(store_.traits().waits);
}

TEST_F(RelayedStoreTest, AsksTheStoreWhereTheRelayHasLessOfAnObject) {
  ASSERT_TRUE(near_->create("obj/short", SpanSource("re")));
  ASSERT_TRUE(origin_->create("obj/short", SpanSource("store")));
  std::string out(5, '?');
  EXPECT_TRUE(store_.read("obj/short", 0, std::as_writable_bytes(std::span(out))));
  EXPECT_EQ(out, "store");
}

TEST_F(RelayedStoreTest, WritesIntoTheStoreAndLooksForVersionsThereFromThenOn) {
  EXPECT_EQ(outcome(store_.create("log/main/2", SpanSource("mine"))), "ok");
  EXPECT_EQ(outcome(near_->size_bytes("log/main/2")), "not found");
  EXPECT_EQ(content("log/main/1"), "store");
  EXPECT_EQ(content("log/main/2"), "mine");
  EXPECT_EQ(content("obj/both"), "relay");
  EXPECT_FALSE(store_.traits().waits);
}

TEST_F(RelayedStoreTest, ListsTheStore) {
  EXPECT_EQ(store_.list("")->size(), 3U);
}

}  // namespace
}  // namespace siltstone
