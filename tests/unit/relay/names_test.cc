// Which names a relay serves.
#include "relay/names.h"

#include <gtest/gtest.h>

#include "repo/keys.h"

namespace siltstone::relay {
namespace {

const std::string kHash(64, 'a');
const std::string kAttempt(32, 'b');

TEST(NamesTest, KindsAndParts) {
  EXPECT_EQ(parse_object_name("repo.json")->kind, NameKind::kRepo);
  EXPECT_EQ(parse_object_name("head/main.json")->kind, NameKind::kHead);
  EXPECT_EQ(parse_object_name("tags/v1.json")->kind, NameKind::kReference);
  EXPECT_EQ(parse_object_name("branches/side.json")->kind, NameKind::kReference);
  EXPECT_EQ(parse_object_name(schema_key(kHash))->sha256, kHash);
  EXPECT_EQ(parse_object_name(companion_key(kHash))->sha256, kHash);
  const auto commit = parse_object_name(commit_key("main", 42));
  ASSERT_TRUE(commit);
  EXPECT_EQ(commit->kind, NameKind::kCommit);
  EXPECT_EQ(commit->branch, "main");
  EXPECT_EQ(commit->seq, 42U);
  EXPECT_TRUE(commit->sealed());
  const auto data = parse_object_name(attempt_prefix("main", 3, 42, kAttempt) + "0-1.safetensors");
  ASSERT_TRUE(data);
  EXPECT_EQ(data->kind, NameKind::kData);
  EXPECT_EQ(data->branch, "main");
  EXPECT_EQ(data->seq, 42U);
  EXPECT_EQ(data->attempt, kAttempt);
  EXPECT_EQ(commit_name("main", 42).text, commit->text);
}

TEST(NamesTest, RefusesWhatNothingProves) {
  for (const std::string& name :
       {std::string(),
        std::string("/repo.json"),
        std::string("repo.json/"),
        std::string("log"),
        std::string("log/main"),
        std::string("log/main/42.json"),
        std::string("log/main/00000000000000000042"),
        std::string("log/../repo.json"),
        std::string("log/main/99999999999999999999.json"),
        std::string("files/abc"),
        "files/" + std::string(64, 'A'),
        "schema/" + kHash,
        "schema/" + kHash + ".json/x",
        std::string("head/main"),
        std::string("head/a/b.json"),
        std::string("side/main/x.json"),
        std::string("jobs/x.json"),
        std::string("obj/main/00000001/x/y"),
        "obj/main/00000001/00000000000000000001." + kAttempt,
        "obj/main/1/00000000000000000001." + kAttempt + "/0-0.safetensors",
        std::string("metrics"),
        std::string("repo.json\0x", 11)}) {
    EXPECT_FALSE(parse_object_name(name)) << name;
  }
}

}  // namespace
}  // namespace siltstone::relay
