// Hostile records: each way a commit, schema, reference or journal can lie is refused with its
// code.
#include <gtest/gtest.h>

#include "base/checksum.h"
#include "base/json.h"
#include "replica/files_replica.h"
#include "repo/commit.h"
#include "repo/schema.h"

namespace siltstone {
namespace {

const std::string kRepo(32, 'a');
const std::string kHash(64, 'b');

Commit valid_commit() {
  Commit commit;
  commit.repo_id = kRepo;
  commit.id = {"main", 1, ""};
  commit.epoch = 1;
  commit.attempt = std::string(32, 'c');
  commit.parent = VersionId{"main", 0, kHash};
  commit.schema = kHash;
  commit.root = kHash;
  commit.time = "2026-01-01T00:00:00Z";
  Artifact delta;
  delta.kind = ArtifactKind::kDelta;
  delta.from_root = kHash;
  delta.to_root = kHash;
  delta.objects.push_back({"obj/main/00000001/x/0-0.safetensors", 100, kHash, 64});
  commit.artifacts.push_back(delta);
  return commit;
}

// The text without its seal, for editing, and sealed again.
Json unsealed(const std::string& text) {
  Json json = Json::parse(text);
  json.erase("seal");
  return json;
}
std::string sealed(const Json& json) {
  std::string text = json.dump();
  text.pop_back();
  return text + ",\"seal\":\"" + sha256_hex(as_bytes(text)) + "\"}";
}

struct Lie {
  const char* name;
  Code code;
  void (*tell)(Json&);
};

void PrintTo(const Lie& lie, std::ostream* out) {
  *out << lie.name;
}

const Lie kCommitLies[] = {
    {"newer_format", Code::kUnsupported, [](Json& j) { j["format"] = 2; }},
    {"format_is_text", Code::kCorrupt, [](Json& j) { j["format"] = "1"; }},
    {"required_feature", Code::kUnsupported, [](Json& j) { j["required_features"] = {"wings"}; }},
    {"features_not_a_list", Code::kCorrupt, [](Json& j) { j["required_features"] = 3; }},
    {"another_repository", Code::kCorrupt, [](Json& j) { j["repo_id"] = std::string(32, 'd'); }},
    {"short_repository", Code::kCorrupt, [](Json& j) { j["repo_id"] = "aa"; }},
    {"another_branch", Code::kCorrupt, [](Json& j) { j["branch"] = "side"; }},
    {"another_seq", Code::kCorrupt, [](Json& j) { j["seq"] = 2; }},
    {"negative_seq", Code::kCorrupt, [](Json& j) { j["seq"] = -1; }},
    {"seq_is_a_fraction", Code::kCorrupt, [](Json& j) { j["seq"] = 1.5; }},
    {"huge_epoch", Code::kCorrupt, [](Json& j) { j["epoch"] = uint64_t{1} << 32; }},
    {"attempt_not_hexadecimal", Code::kCorrupt,
     [](Json& j) { j["attempt"] = std::string(32, 'z'); }},
    {"unknown_kind", Code::kUnsupported, [](Json& j) { j["kind"] = "rebase"; }},
    {"no_parent", Code::kCorrupt, [](Json& j) { j.erase("parent"); }},
    {"null_parent", Code::kCorrupt, [](Json& j) { j["parent"] = nullptr; }},
    {"parent_is_itself", Code::kCorrupt, [](Json& j) { j["parent"]["seq"] = 1; }},
    {"parent_of_far_back", Code::kCorrupt, [](Json& j) { j["parent"]["seq"] = 7; }},
    {"parent_branch_climbs", Code::kCorrupt, [](Json& j) { j["parent"]["branch"] = "../x"; }},
    {"parent_hash_short", Code::kCorrupt, [](Json& j) { j["parent"]["hash"] = "00"; }},
    {"schema_in_capitals", Code::kCorrupt, [](Json& j) { j["schema"] = std::string(64, 'B'); }},
    {"no_state", Code::kCorrupt, [](Json& j) { j.erase("state"); }},
    {"another_digest", Code::kUnsupported, [](Json& j) { j["state"]["algorithm"] = "md5"; }},
    {"root_is_a_number", Code::kCorrupt, [](Json& j) { j["state"]["root"] = 5; }},
    {"artifacts_not_a_list", Code::kCorrupt, [](Json& j) { j["artifacts"] = "all"; }},
    {"no_artifact", Code::kCorrupt, [](Json& j) { j["artifacts"] = Json::array(); }},
    {"two_deltas", Code::kCorrupt, [](Json& j) { j["artifacts"].push_back(j["artifacts"][0]); }},
    {"unknown_artifact", Code::kUnsupported, [](Json& j) { j["artifacts"][0]["type"] = "patch"; }},
    {"artifact_to_another_root", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["to"] = std::string(64, 'e'); }},
    {"delta_from_nowhere", Code::kCorrupt, [](Json& j) { j["artifacts"][0].erase("from"); }},
    {"object_outside_obj", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["key"] = "log/main/1.json"; }},
    {"object_climbs", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["key"] = "obj/../../etc/passwd"; }},
    {"object_absolute", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["key"] = "/etc/passwd"; }},
    {"object_twice", Code::kCorrupt,
     [](Json& j) {
       auto& objects = j["artifacts"][0]["objects"];
       objects.push_back(objects[0]);
     }},
    {"object_too_large", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["length"] = (uint64_t{5} << 30) + 1; }},
    {"object_length_negative", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["length"] = -4; }},
    {"header_longer_than_object", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0]["header"] = 101; }},
    {"object_hash_missing", Code::kCorrupt,
     [](Json& j) { j["artifacts"][0]["objects"][0].erase("sha256"); }},
    {"list_too_large", Code::kCorrupt,
     [](Json& j) {
       j["artifacts"][0]["lists"] = j["artifacts"][0]["objects"];
       j["artifacts"][0]["lists"][0]["length"] = uint64_t{1} << 30;
     }},
    {"step_is_text", Code::kCorrupt, [](Json& j) { j["user"]["step"] = "three"; }},
    {"message_is_a_list", Code::kCorrupt, [](Json& j) { j["user"]["message"] = {1}; }},
    {"no_user", Code::kCorrupt, [](Json& j) { j.erase("user"); }},
};

class HostileCommit : public ::testing::TestWithParam<Lie> {};

TEST_P(HostileCommit, IsRefused) {
  Json json = unsealed(*format_commit(valid_commit()));
  ASSERT_TRUE(parse_commit(sealed(json), kRepo, "main", 1));
  GetParam().tell(json);
  const Result<Commit> parsed = parse_commit(sealed(json), kRepo, "main", 1);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, GetParam().code) << parsed.error().message;
  EXPECT_FALSE(parsed.error().message.empty());
}

INSTANTIATE_TEST_SUITE_P(Lies, HostileCommit, ::testing::ValuesIn(kCommitLies),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(HostileCommitText, IsRefused) {
  const std::string good = *format_commit(valid_commit());
  const auto refuse = [](const std::string& text) {
    const Result<Commit> parsed = parse_commit(text, kRepo, "main", 1);
    return !parsed && parsed.error().code == Code::kCorrupt;
  };
  EXPECT_FALSE(refuse(good));
  EXPECT_TRUE(refuse(""));
  EXPECT_TRUE(refuse("[]"));
  EXPECT_TRUE(refuse(good + " "));
  EXPECT_TRUE(refuse(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(refuse(std::string(70000, ' ') + good)) << "more than 64 KiB";
  EXPECT_TRUE(refuse(std::string(5000, '[')));
  EXPECT_TRUE(refuse("{\"format\":1,\"format\":1}")) << "a key twice";
  EXPECT_TRUE(
      refuse("{\"format\":1,\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}"));
  EXPECT_TRUE(refuse("{\"format\":1,\"x\":\"\xff\"}")) << "not UTF-8";
}

TEST(CommitLimits, LongMessagesAreRefusedBeforeAnythingIsWritten) {
  Commit commit = valid_commit();
  commit.message = std::string(70000, 'm');
  const Result<std::string> text = format_commit(commit);
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, Code::kInvalidArgument);
}

// Schemas: paths that would leave the folder, files that are each other's folder, lying headers.
class HostileSchema : public ::testing::TestWithParam<Lie> {};

const Lie kSchemaLies[] = {
    {"newer_format", Code::kUnsupported, [](Json& j) { j["format"] = 2; }},
    {"path_climbs", Code::kCorrupt, [](Json& j) { j["weights"][0]["path"] = "../m.safetensors"; }},
    {"path_absolute", Code::kCorrupt, [](Json& j) { j["weights"][0]["path"] = "/m.safetensors"; }},
    {"path_empty", Code::kCorrupt, [](Json& j) { j["companions"][0]["path"] = ""; }},
    {"path_with_dot", Code::kCorrupt, [](Json& j) { j["companions"][0]["path"] = "a/./b"; }},
    {"path_of_ours", Code::kCorrupt,
     [](Json& j) { j["companions"][0]["path"] = ".siltstone/replica.json"; }},
    {"path_with_newline", Code::kCorrupt, [](Json& j) { j["companions"][0]["path"] = "a\nb"; }},
    {"path_with_backslash", Code::kCorrupt, [](Json& j) { j["companions"][0]["path"] = "a\\b"; }},
    {"path_too_deep", Code::kCorrupt,
     [](Json& j) { j["companions"][0]["path"] = "a/b/c/d/e/f/g/h/i"; }},
    {"path_twice", Code::kCorrupt,
     [](Json& j) { j["companions"][0]["path"] = j["weights"][0]["path"]; }},
    {"file_is_a_folder", Code::kCorrupt,
     [](Json& j) { j["companions"][0]["path"] = "m.safetensors/x"; }},
    {"tensor_in_two_files", Code::kCorrupt,
     [](Json& j) {
       j["weights"].push_back(j["weights"][0]);
       j["weights"][1]["path"] = "n.safetensors";
     }},
    {"size_too_small", Code::kCorrupt, [](Json& j) { j["weights"][0]["size"] = 3; }},
    {"size_too_large", Code::kCorrupt, [](Json& j) { j["weights"][0]["size"] = 1 << 20; }},
    {"header_not_json", Code::kCorrupt, [](Json& j) { j["weights"][0]["header"] = "{"; }},
    {"companion_hash", Code::kCorrupt, [](Json& j) { j["companions"][0]["sha256"] = "x"; }},
    {"no_weights", Code::kCorrupt, [](Json& j) { j.erase("weights"); }},
};

TEST_P(HostileSchema, IsRefused) {
  const std::string header = R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  Json json = {{"format", 1},
               {"weights",
                {{{"path", "m.safetensors"}, {"size", 8 + header.size() + 4}, {"header", header}}}},
               {"companions", {{{"path", "config.json"}, {"size", 2}, {"sha256", kHash}}}}};
  const auto parse = [](const Json& of) {
    const std::string text = of.dump();
    return parse_schema(text, sha256_hex(as_bytes(text)));
  };
  const Result<Schema> good = parse(json);
  ASSERT_TRUE(good) << good.error().message;
  GetParam().tell(json);
  const Result<Schema> parsed = parse(json);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, GetParam().code) << parsed.error().message;
}

INSTANTIATE_TEST_SUITE_P(Lies, HostileSchema, ::testing::ValuesIn(kSchemaLies),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(HostileSchemaHash, IsRefused) {
  EXPECT_FALSE(parse_schema(R"({"format":1,"weights":[],"companions":[]})", kHash));
}

TEST(HostileJournal, CannotNameFilesElsewhere) {
  const auto journal = [](const std::string& stage, const std::string& path) {
    ReplicaJournal j;
    j.stage = stage;
    j.renames = {path};
    return parse_journal(format_journal(j));
  };
  EXPECT_TRUE(journal("stage-1", "model.safetensors"));
  EXPECT_FALSE(journal("../stage-1", "model.safetensors"));
  EXPECT_FALSE(journal("stage-1/../..", "model.safetensors"));
  EXPECT_FALSE(journal("stage-1", "../model.safetensors"));
  EXPECT_FALSE(journal("stage-1", "/etc/passwd"));
  EXPECT_FALSE(parse_journal("{}"));
  EXPECT_FALSE(parse_replica("not json"));
}

}  // namespace
}  // namespace siltstone
