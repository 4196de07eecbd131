// Damage to any object of a small repository - every byte with a flipped bit, every truncation,
// objects swapped - is found by verify, and never leads to wrong weights.
#include <gtest/gtest.h>

#include <cstdio>

#include "repo/objects.h"
#include "siltstone/repository.h"
#include "store/memory.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::ScratchFolder;
using test::TinyModel;

// With plain anchors and with packed ones.
class Corruption : public ::testing::TestWithParam<bool> {
 protected:
  Corruption() {
    const auto repository = *Repository::init(store_);
    TinyModel model;
    PublishOptions publish;
    publish.pack_anchors = GetParam();
    for (uint64_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(repository->publish(*model.checkpoint(), publish));
      models_.push_back(model);
      model.step(i);
    }
    EXPECT_TRUE(repository->tag("release", *repository->resolve("main@1")));
    EXPECT_TRUE(repository->branch("side", *repository->resolve("main@1")));
    for (const ObjectInfo& object : *store_->list("")) {
      std::string content(object.size_bytes, '\0');
      EXPECT_TRUE(store_->read(object.name, 0, std::as_writable_bytes(std::span(content))));
      objects_.emplace_back(object.name, std::move(content));
    }
  }

  static bool is_hint(const std::string& name) { return name.starts_with("head/"); }

  // Whether verify finds the damage, or opening the repository fails.
  bool found() const {
    const Result<std::unique_ptr<Repository>> repository = Repository::open(store_);
    if (!repository) return true;
    VerifyOptions options;
    options.data = true;
    options.threads = 1;
    const Result<VerifyReport> report = (*repository)->verify(options);
    return !report || !report->problems.empty();
  }

  // A checkout of the head either fails or gives exactly one of the versions.
  bool rebuilds_truly() const {
    const Result<std::unique_ptr<Repository>> repository = Repository::open(store_);
    if (!repository) return true;
    const Result<Version> head = (*repository)->head("main");
    if (!head) return true;
    const ScratchFolder scratch;
    if (!(*repository)->checkout(*head, scratch.path() / "out", {})) return true;
    return head->id.seq < models_.size() &&
           bool(models_[head->id.seq].is_in(scratch.path() / "out"));
  }

  void put(const std::string& name, const std::string& content) {
    ASSERT_TRUE(store_->remove(name));
    ASSERT_TRUE(store_->create(name, PiecesSource({as_bytes(content)})));
  }

  std::shared_ptr<MemoryStore> store_ = std::make_shared<MemoryStore>("mem://corruption");
  std::vector<TinyModel> models_;
  std::vector<std::pair<std::string, std::string>> objects_;
};

TEST_P(Corruption, NothingIsFoundWithoutIt) {
  EXPECT_FALSE(found());
  EXPECT_GE(objects_.size(), 11U);
}

// Sanitizers make a run ten times as long; every byte is still visited.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kBits = 1;
#else
constexpr int kBits = 8;
#endif

TEST_P(Corruption, EveryFlippedBitIsFound) {
  uint64_t flips = 0;
  for (const auto& [name, content] : objects_) {
    for (size_t flip = 0; flip < content.size() * kBits; ++flip) {
      const size_t at = flip / kBits;
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (kBits == 8 ? flip : at) % 8));
      put(name, damaged);
      ++flips;
      if (is_hint(name)) {
        ASSERT_FALSE(found()) << name << " byte " << at << ": a hint carries no truth";
      } else {
        ASSERT_TRUE(found()) << name << " byte " << at;
      }
      if (flip % (16 * kBits) == 0) {
        ASSERT_TRUE(rebuilds_truly()) << name << " byte " << at;
      }
    }
    put(name, content);
  }
  std::printf("%zu objects, %lu flips\n", objects_.size(), static_cast<unsigned long>(flips));
}

TEST_P(Corruption, EveryTruncationIsFound) {
  for (const auto& [name, content] : objects_) {
    for (size_t length = 0; length < content.size(); ++length) {
      put(name, content.substr(0, length));
      if (!is_hint(name)) {
        ASSERT_TRUE(found()) << name << " cut to " << length;
      }
      if (length % 16 == 0) {
        ASSERT_TRUE(rebuilds_truly()) << name << " cut to " << length;
      }
    }
    put(name, content);
  }
}

TEST_P(Corruption, SwappedAndMissingObjectsAreFound) {
  for (const auto& [name, content] : objects_) {
    if (is_hint(name)) continue;
    ASSERT_TRUE(store_->remove(name));
    // Without its newest commit a branch is an earlier state of itself, and without its record a
    // reference does not exist: nothing in the bucket says otherwise.
    const bool silent =
        name.ends_with("0002.json") || name.starts_with("tags/") || name.starts_with("branches/");
    if (!silent) {
      EXPECT_TRUE(found()) << name << " missing";
    }
    EXPECT_TRUE(rebuilds_truly()) << name << " missing";
    for (const auto& [other, other_content] : objects_) {
      if (other_content == content || is_hint(other)) continue;
      put(name, other_content);
      EXPECT_TRUE(found()) << name << " replaced by " << other;
      EXPECT_TRUE(rebuilds_truly()) << name << " replaced by " << other;
    }
    put(name, content);
  }
}

INSTANTIATE_TEST_SUITE_P(Anchors, Corruption, ::testing::Bool(),
                         [](const auto& of) { return std::string(of.param ? "Packed" : "Plain"); });

}  // namespace
}  // namespace siltstone
