#include <gtest/gtest.h>

#include <filesystem>

#include "contract/store_contract.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

std::string url_of(const std::string& url) {
  const auto store = open_store(url);
  return store ? (*store)->url() : "<" + outcome(store) + ">";
}

TEST(OpenStore, TakesPaths) {
  const std::string here = fs::current_path().string();
  EXPECT_EQ(url_of("/tmp/some/bucket"), "/tmp/some/bucket");
  EXPECT_EQ(url_of("/tmp/some/bucket/"), "/tmp/some/bucket");
  EXPECT_EQ(url_of("some/bucket"), here + "/some/bucket");
  EXPECT_EQ(url_of("C:x"), here + "/C:x");
  EXPECT_EQ(url_of("a:b"), here + "/a:b");
  EXPECT_EQ(url_of("s3:/bucket"), here + "/s3:/bucket");
  EXPECT_EQ(url_of("/tmp/odd://name"), "/tmp/odd://name");
  EXPECT_EQ(url_of("://x"), here + "/://x");
}

TEST(OpenStore, TakesFileUrls) {
  EXPECT_EQ(url_of("file:///tmp/some/bucket"), "/tmp/some/bucket");
  EXPECT_EQ(url_of("FILE:///tmp/some/bucket"), "/tmp/some/bucket");
  EXPECT_EQ(url_of("file:///tmp/a%20b%2Fc%2fd"), "/tmp/a b/c/d");
  EXPECT_EQ(url_of("file://host/bucket"), "<invalid argument>");
  EXPECT_EQ(url_of("file://"), "<invalid argument>");
  for (const char* url : {"file:///a%", "file:///a%2", "file:///a%zz", "file:///a%00b"}) {
    EXPECT_EQ(url_of(url), "<invalid argument>") << url;
  }
}

TEST(OpenStore, SharesMemoryStoresOfOneName) {
  const auto first = *open_store("mem://open-store-test");
  const auto second = *open_store("mem://open-store-test");
  const auto other = *open_store("mem://open-store-test/other");
  ASSERT_EQ(outcome(first->create("a", SpanSource("1"))), "ok");
  EXPECT_EQ(outcome(second->size_bytes("a")), "ok");
  EXPECT_EQ(outcome(other->size_bytes("a")), "not found");
  EXPECT_EQ(first->url(), "mem://open-store-test");
  EXPECT_EQ(url_of("mem://"), "<invalid argument>");
  EXPECT_EQ(url_of("mem://A B"), "<invalid argument>");
}

TEST(OpenStore, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(url_of(""), "<invalid argument>");
  EXPECT_EQ(url_of(std::string("/tmp/a\0b", 8)), "<invalid argument>");
  for (const std::string url : {"ftp://host/bucket", "x://y"}) {
    const auto store = open_store(url);
    ASSERT_EQ(outcome(store), "unsupported") << url;
    EXPECT_NE(store.error().message.find("expected a path, file:///path, s3://"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace siltstone
