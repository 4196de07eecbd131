// The whole of a relay, spoken to over sockets; tests/cli/relay_test.py has the rest.
#include "siltstone/relay.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <fstream>

#include "published_bucket.h"

namespace siltstone::relay {
namespace {

namespace fs = std::filesystem;

// One connection; reads what it is told to.
class Client {
 public:
  explicit Client(const std::string& url) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(url.substr(url.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socket_ = File(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "client");
    EXPECT_EQ(::connect(socket_.fd(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }

  void ask(const std::string& name, const std::string& headers = "") {
    const std::string text = "GET /" + name + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n";
    EXPECT_EQ(::send(socket_.fd(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  // Status line and headers.
  std::string head() {
    std::string text;
    while (!text.ends_with("\r\n\r\n")) {
      const std::string next = take(1);
      if (next.empty()) break;
      text += next;
    }
    return text;
  }
  // Up to that many bytes; fewer where the connection ends.
  std::string take(size_t bytes) {
    std::string text(bytes, '\0');
    size_t got = 0;
    while (got < bytes) {
      const ssize_t more = ::recv(socket_.fd(), text.data() + got, bytes - got, 0);
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    text.resize(got);
    return text;
  }

 private:
  File socket_;
};

class RelayTest : public ::testing::Test {
 protected:
  ~RelayTest() override { bucket_.open_gate(); }

  void start(double interval_seconds = 1) {
    RelayOptions options;
    options.cache = folder_.path() / "cache";
    options.interval_seconds = interval_seconds;
    auto started = Relay::start(bucket_.store(), options);
    ASSERT_TRUE(started) << started.error().message;
    relay_ = *std::move(started);
  }
  std::string metric(const std::string& name) {
    Client client(relay_->url());
    client.ask("metrics", "Connection: close\r\n");
    client.head();
    const std::string page = client.take(1 << 20);
    const size_t at = page.find("\nsiltstone_relay_" + name + " ");
    if (at == page.npos) return "none";
    const size_t begin = page.find(' ', at) + 1;
    return page.substr(begin, page.find('\n', begin) - begin);
  }

  PublishedBucket bucket_;
  test::ScratchFolder folder_;
  std::unique_ptr<Relay> relay_;
};

constexpr size_t kLarge = size_t{10} << 20;  // three pieces

TEST_F(RelayTest, RangesWhileTheObjectArrives) {
  start();
  const std::string name = bucket_.add_file(kLarge);
  const std::string content = bucket_.content(name);
  bucket_.close_gate(name, 1 + 1);  // its size and the first piece
  Client whole(relay_->url()), early(relay_->url()), late(relay_->url());
  whole.ask(name);
  EXPECT_NE(whole.head().find("Content-Length: 10485760"), std::string::npos);
  EXPECT_EQ(whole.take(4 << 20), content.substr(0, 4 << 20));
  early.ask(name, "Range: bytes=1000-2999\r\n");
  EXPECT_TRUE(early.head().starts_with("HTTP/1.1 206"));
  EXPECT_EQ(early.take(2000), content.substr(1000, 2000));
  late.ask(name, "Range: bytes=-100\r\n");
  EXPECT_NE(late.head().find("Content-Range: bytes 10485660-10485759/10485760"), std::string::npos);
  while (metric("waiting_requests{for=\"bytes\"}") != "2") {
  }
  bucket_.open_gate();
  EXPECT_EQ(late.take(100), content.substr(kLarge - 100));
  EXPECT_EQ(whole.take(kLarge - (4 << 20)), content.substr(4 << 20));
  EXPECT_EQ(bucket_.count("read", name), 3);
  // The same connections go on.
  late.ask("repo.json");
  EXPECT_TRUE(late.head().starts_with("HTTP/1.1 200"));
  EXPECT_EQ(late.take(10), bucket_.content("repo.json").substr(0, 10));
}

TEST_F(RelayTest, ADamagedObjectIsCutBeforeItsEnd) {
  start();
  const std::string name = bucket_.add_file(kLarge);
  const std::string content = bucket_.content(name);
  bucket_.damage(name);
  bucket_.close_gate(name, 2);
  Client whole(relay_->url()), tail(relay_->url());
  whole.ask(name);
  EXPECT_TRUE(whole.head().starts_with("HTTP/1.1 200"));
  tail.ask(name, "Range: bytes=-1\r\n");
  EXPECT_TRUE(tail.head().starts_with("HTTP/1.1 206"));
  bucket_.open_gate();
  EXPECT_LT(whole.take(kLarge).size(), kLarge);
  EXPECT_EQ(tail.take(1), "");
  EXPECT_EQ(metric("integrity_failures_total{in=\"store\"}"), "1");
  EXPECT_EQ(metric("cache_objects"), "1");  // repo.json
  bucket_.overwrite(name, content);
  Client again(relay_->url());
  again.ask(name);
  again.head();
  EXPECT_EQ(again.take(kLarge), content);
}

TEST_F(RelayTest, HeldUntilTheNextVersion) {
  start(0.02);
  const std::string next = commit_key("main", 2);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(relay_->url()));
    clients.back()->ask(next, "Prefer: wait=60\r\n");
  }
  while (metric("waiting_requests{for=\"version\"}") != "20") {
  }
  bucket_.publish();
  for (const auto& client : clients) EXPECT_TRUE(client->head().starts_with("HTTP/1.1 200"));
  EXPECT_EQ(metric("waiting_requests{for=\"version\"}"), "0");
  EXPECT_EQ(bucket_.count("read", next), 1);
}

TEST_F(RelayTest, StopEndsWhatWaitsAndLeavesNothing) {
  start();
  const std::string name = bucket_.add_file(kLarge);
  bucket_.close_gate(name, 2);
  Client held(relay_->url()), arriving(relay_->url());
  held.ask(commit_key("main", 2), "Prefer: wait=60\r\n");
  arriving.ask(name);
  EXPECT_TRUE(arriving.head().starts_with("HTTP/1.1 200"));
  while (metric("waiting_requests{for=\"version\"}") != "1") {
  }
  while (bucket_.count("read", name) < 2) {
  }
  EXPECT_FALSE(relay_->stop(0.05));  // the store still holds a call
  EXPECT_LT(arriving.take(kLarge).size(), kLarge);
  held.take(10000);  // ends
  EXPECT_TRUE(fs::is_empty(folder_.path() / "cache/arriving"));
  bucket_.open_gate();
  relay_.reset();
  EXPECT_TRUE(fs::is_empty(folder_.path() / "cache/arriving"));
}

TEST_F(RelayTest, HealthFollowsTheStore) {
  bucket_.faults().fail_at(0, Fault::kFailBefore);
  start();
  const auto health = [&] {
    Client client(relay_->url());
    client.ask("healthz", "Connection: close\r\n");
    return client.take(10000);
  };
  EXPECT_TRUE(health().starts_with("HTTP/1.1 503"));
  EXPECT_NE(health().find("\"reason\""), std::string::npos);
  Client client(relay_->url());
  client.ask("repo.json");
  EXPECT_TRUE(client.head().starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(health().starts_with("HTTP/1.1 200"));
}

TEST_F(RelayTest, RefusesWhatCannotWork) {
  RelayOptions options;
  const auto refusal = [&] {
    const auto started = Relay::start(bucket_.store(), options);
    return started ? Code::kInternal : started.error().code;
  };
  EXPECT_EQ(refusal(), Code::kInvalidArgument);  // no cache
  options.cache = folder_.path() / "cache";
  options.address = "somewhere";
  EXPECT_EQ(refusal(), Code::kInvalidArgument);
  options.address = "127.0.0.1";
  options.interval_seconds = 0;
  EXPECT_EQ(refusal(), Code::kInvalidArgument);
  options.interval_seconds = 1;
  const auto empty = Relay::start(std::make_shared<MemoryStore>("mem://empty"), options);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, Code::kNotFound);
}

}  // namespace
}  // namespace siltstone::relay
