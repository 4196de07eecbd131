#include "store/s3_credentials.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "unit/base/temp_folder.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

class S3CredentialsTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    home_.write(".aws/" + name, text);
  }
  Result<S3Profile> find(std::map<std::string, std::string> variables) {
    variables.emplace("HOME", home_.path().string());
    return find_s3_profile([variables](const char* name) -> std::optional<std::string> {
      const auto found = variables.find(name);
      return found == variables.end() ? std::nullopt : std::optional(found->second);
    });
  }
  // "access/secret/token region endpoint", or what is wrong.
  std::string found(const std::map<std::string, std::string>& variables) {
    const Result<S3Profile> profile = find(variables);
    if (!profile) {
      EXPECT_EQ(profile.error().code, Code::kPermission);
      return profile.error().message;
    }
    const S3Credentials keys = profile->credentials.value_or(S3Credentials{"-", "-", "-"});
    return keys.access_key + "/" + keys.secret_key + "/" + keys.session_token + " " +
           profile->region + " " + profile->endpoint;
  }

  TempFolder home_;
};

TEST_F(S3CredentialsTest, NothingAnywhere) {
  EXPECT_EQ(found({}), "-/-/-  ");
}

TEST_F(S3CredentialsTest, TheEnvironment) {
  EXPECT_EQ(found({{"AWS_ACCESS_KEY_ID", "A"},
                   {"AWS_SECRET_ACCESS_KEY", "S"},
                   {"AWS_SESSION_TOKEN", "T"},
                   {"AWS_DEFAULT_REGION", "eu-west-1"},
                   {"AWS_ENDPOINT_URL", "http://one"}}),
            "A/S/T eu-west-1 http://one");
  EXPECT_EQ(found({{"AWS_REGION", "eu-west-2"},
                   {"AWS_DEFAULT_REGION", "eu-west-1"},
                   {"AWS_ENDPOINT_URL", "http://one"},
                   {"AWS_ENDPOINT_URL_S3", "http://two"}}),
            "-/-/- eu-west-2 http://two");
}

TEST_F(S3CredentialsTest, HalfAKeyIsRefusedWithoutShowingIt) {
  EXPECT_EQ(found({{"AWS_ACCESS_KEY_ID", "A"}}),
            "the environment has an access key but no secret key");
  EXPECT_EQ(found({{"AWS_SECRET_ACCESS_KEY", "hidden"}}),
            "the environment has a secret key but no access key");
  write("credentials", "[default]\naws_secret_access_key = hidden\n");
  EXPECT_EQ(found({}), "the S3 profile has a secret key but no access key");
}

TEST_F(S3CredentialsTest, TheFilesOfAProfile) {
  write("credentials",
        "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\r\n\n"
        "[other]\n aws_access_key_id = nested\naws_access_key_id=B\n; comment\n"
        "aws_secret_access_key =  U  \naws_session_token = V\n");
  write("config",
        "[default]\nregion = eu-north-1\ns3 =\n  region = nested\n"
        "[profile other]\nendpoint_url = http://three\naws_access_key_id = not this\n");
  EXPECT_EQ(found({}), "A/S=/+/ eu-north-1 ");
  EXPECT_EQ(found({{"AWS_PROFILE", "other"}}), "B/U/V  http://three");
  // The environment goes first, and keys are never mixed.
  EXPECT_EQ(found({{"AWS_PROFILE", "other"},
                   {"AWS_ACCESS_KEY_ID", "X"},
                   {"AWS_SECRET_ACCESS_KEY", "Y"},
                   {"AWS_REGION", "r"}}),
            "X/Y/ r http://three");
}

TEST_F(S3CredentialsTest, OtherPlacesForTheFiles) {
  write("mine", "[default]\naws_access_key_id=A\naws_secret_access_key=S\n");
  EXPECT_EQ(found({{"AWS_SHARED_CREDENTIALS_FILE", (home_.path() / ".aws/mine").string()}}),
            "A/S/  ");
}

TEST_F(S3CredentialsTest, AProfileThatCannotBeUsedSaysWhy) {
  EXPECT_NE(found({{"AWS_PROFILE", "absent"}}).find("AWS_PROFILE names the profile 'absent'"),
            std::string::npos);
  write("config", "[default]\nsso_session = x\n");
  EXPECT_NE(found({}).find("takes its keys from 'sso_session'"), std::string::npos);
}

TEST_F(S3CredentialsTest, AFileThatIsNoProfileFileIsHarmless) {
  write("credentials", std::string("[default\n=\n[]\nx\n[default]\n = y\nz = \n\0\n", 33));
  EXPECT_EQ(found({}), "-/-/-  ");
  fs::create_directories(home_.path() / ".aws" / "config");
  const Result<S3Profile> profile = find({});
  EXPECT_FALSE(profile.has_value());
}

}  // namespace
}  // namespace siltstone
