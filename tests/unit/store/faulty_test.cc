#include "store/faulty.h"

#include <gtest/gtest.h>

#include <bit>

#include "contract/store_contract.h"
#include "store/memory.h"

namespace siltstone {
namespace {

class FaultyStoreTest : public testing::Test {
 protected:
  Status create(std::string_view name, std::string_view text) {
    return faulty_.create(name, SpanSource(text));
  }
  std::string content(Store& store, std::string_view name) {
    const Result<uint64_t> size = store.size_bytes(name);
    if (!size) return "<" + outcome(size) + ">";
    std::string out(*size, '?');
    const Status got = store.read(name, 0, std::as_writable_bytes(std::span(out)));
    return got ? out : "<" + outcome(got) + ">";
  }
  std::string read(std::string_view name, size_t length_bytes) {
    std::string out(length_bytes, '?');
    const Status got = faulty_.read(name, 0, std::as_writable_bytes(std::span(out)));
    return got ? out : "<" + outcome(got) + "> " + out;
  }

  std::shared_ptr<MemoryStore> inner_ = std::make_shared<MemoryStore>("mem://inner");
  FaultyStore faulty_{inner_};
};

TEST_F(FaultyStoreTest, CountsEveryOperation) {
  std::vector<std::string> seen;
  faulty_.on_operation([&](std::string_view operation, std::string_view name) {
    seen.push_back(std::string(operation) + " " + std::string(name));
  });
  ASSERT_EQ(outcome(create("a", "1")), "ok");
  ASSERT_EQ(outcome(faulty_.replace("b", {})), "ok");
  ASSERT_EQ(outcome(faulty_.size_bytes("a")), "ok");
  ASSERT_EQ(outcome(faulty_.read("a", 0, {})), "ok");
  ASSERT_EQ(outcome(faulty_.list("a")), "ok");
  ASSERT_EQ(outcome(faulty_.remove("a")), "ok");
  EXPECT_EQ(faulty_.operations(), 6U);
  EXPECT_EQ(seen, (std::vector<std::string>{"create a", "replace b", "size a", "read a", "list a",
                                            "remove a"}));
  faulty_.fail_at(1, Fault::kFailBefore);
  EXPECT_EQ(faulty_.operations(), 0U);
}

TEST_F(FaultyStoreTest, StrikesTheChosenOperationOnly) {
  faulty_.fail_at(1, Fault::kFailBefore);
  EXPECT_EQ(outcome(create("a", "1")), "ok");
  EXPECT_FALSE(faulty_.struck());
  EXPECT_EQ(outcome(create("b", "1")), "unavailable");
  EXPECT_TRUE(faulty_.struck());
  EXPECT_EQ(outcome(create("b", "1")), "ok");
  faulty_.fail_at(0, Fault::kFailBefore);
  EXPECT_FALSE(faulty_.struck());
  faulty_.heal();
  EXPECT_EQ(outcome(create("c", "1")), "ok");
  EXPECT_FALSE(faulty_.struck());
}

TEST_F(FaultyStoreTest, FailingBeforeDoesNothingAndAfterDoesAll) {
  for (const bool done : {false, true}) {
    ASSERT_EQ(outcome(inner_->create("gone", SpanSource("x"))), "ok");
    ASSERT_EQ(outcome(inner_->replace("hint", as_bytes("old"))), "ok");
    const Fault fault = done ? Fault::kFailAfter : Fault::kFailBefore;
    faulty_.fail_at(0, fault);
    EXPECT_EQ(outcome(create("made", "1")), "unavailable");
    faulty_.fail_at(0, fault);
    EXPECT_EQ(outcome(faulty_.replace("hint", as_bytes("new"))), "unavailable");
    faulty_.fail_at(0, fault);
    EXPECT_EQ(outcome(faulty_.remove("gone")), "unavailable");
    faulty_.fail_at(0, fault);
    EXPECT_EQ(outcome(faulty_.size_bytes("hint")), "unavailable");
    faulty_.fail_at(0, fault);
    EXPECT_EQ(outcome(faulty_.list("")), "unavailable");
    faulty_.fail_at(0, fault);
    EXPECT_EQ(read("hint", 3), done ? "<unavailable> new" : "<unavailable> ???");
    EXPECT_EQ(content(*inner_, "made"), done ? "1" : "<not found>");
    EXPECT_EQ(content(*inner_, "hint"), done ? "new" : "old");
    EXPECT_EQ(content(*inner_, "gone"), done ? "<not found>" : "x");
    ASSERT_EQ(outcome(inner_->remove("gone")), "ok");
  }
}

TEST_F(FaultyStoreTest, FailingAfterKeepsTheErrorThatTheOperationHadAnyway) {
  ASSERT_EQ(outcome(inner_->create("a", SpanSource("1"))), "ok");
  faulty_.fail_at(0, Fault::kFailAfter);
  EXPECT_EQ(outcome(create("a", "2")), "conflict");
}

TEST_F(FaultyStoreTest, NoSpaceDoesNothing) {
  faulty_.fail_at(0, Fault::kNoSpace);
  const Status got = create("a", "1");
  ASSERT_EQ(outcome(got), "input/output");
  EXPECT_NE(got.error().message.find("no space left"), std::string::npos);
  EXPECT_EQ(content(*inner_, "a"), "<not found>");
}

TEST_F(FaultyStoreTest, ShortReadsGiveHalfAndSaySo) {
  ASSERT_EQ(outcome(create("a", "0123456789")), "ok");
  faulty_.fail_at(0, Fault::kShortRead);
  EXPECT_EQ(read("a", 10), "<corrupt> 01234?????");
  faulty_.fail_at(0, Fault::kShortRead);
  EXPECT_EQ(outcome(create("b", "1")), "unavailable");
  EXPECT_EQ(content(*inner_, "b"), "<not found>");
}

TEST_F(FaultyStoreTest, WrongBytesDifferInOneBit) {
  const std::string text(100, 'a');
  ASSERT_EQ(outcome(create("a", text)), "ok");
  for (uint64_t index = 0; index < 40; ++index) {
    faulty_.fail_at(index, Fault::kWrongBytes);
    for (uint64_t i = 0; i < index; ++i) ASSERT_EQ(read("a", 100), text);
    const std::string got = read("a", 100);
    ASSERT_EQ(got.size(), text.size());
    int wrong_bits = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      wrong_bits += std::popcount(static_cast<unsigned char>(got[i] ^ text[i]));
    }
    EXPECT_EQ(wrong_bits, 1) << index;
    EXPECT_EQ(read("a", 100), text);
  }
  faulty_.fail_at(0, Fault::kWrongBytes);
  EXPECT_EQ(outcome(faulty_.read("a", 0, {})), "ok");
}

TEST_F(FaultyStoreTest, StaleHintsAreAbsentOrOlder) {
  ASSERT_EQ(outcome(inner_->replace("head/a", as_bytes("zero"))), "ok");
  faulty_.fail_at(0, Fault::kStaleHint);
  EXPECT_EQ(content(faulty_, "head/a"), "<not found>") << "no replacement was seen";
  EXPECT_EQ(content(faulty_, "head/a"), "<not found>") << "as stale as before";
  faulty_.heal();
  EXPECT_EQ(content(faulty_, "head/a"), "zero");

  ASSERT_EQ(outcome(faulty_.replace("head/a", as_bytes("one one"))), "ok");
  faulty_.fail_at(0, Fault::kStaleHint);
  EXPECT_EQ(content(faulty_, "head/a"), "zero");
  ASSERT_EQ(outcome(faulty_.replace("head/a", as_bytes("two"))), "ok");
  EXPECT_EQ(content(faulty_, "head/a"), "two") << "a replacement ends it";

  faulty_.fail_at(0, Fault::kStaleHint);
  EXPECT_EQ(content(faulty_, "head/a"), "one one");
  EXPECT_EQ(read("head/a", 8), "<corrupt> ????????");
  EXPECT_TRUE(faulty_.struck());
}

TEST_F(FaultyStoreTest, StaleHintsLeaveOtherOperationsAlone) {
  ASSERT_EQ(outcome(create("log/a", "1")), "ok");
  ASSERT_EQ(outcome(faulty_.replace("head/a", as_bytes("one"))), "ok");
  faulty_.fail_at(0, Fault::kStaleHint);
  EXPECT_EQ(content(faulty_, "log/a"), "1");
  EXPECT_TRUE(faulty_.struck());
  faulty_.fail_at(0, Fault::kStaleHint);
  EXPECT_EQ(outcome(faulty_.replace("head/a", as_bytes("two"))), "ok");
  EXPECT_EQ(content(faulty_, "head/a"), "two");
}

}  // namespace
}  // namespace siltstone
