#include "store/s3_location.h"

#include <gtest/gtest.h>

namespace siltstone {
namespace {

std::string parsed(const std::string& url, const S3Profile& profile = {}) {
  const Result<S3Location> location = parse_s3_url(url, profile);
  if (!location) {
    EXPECT_EQ(location.error().code, Code::kInvalidArgument);
    EXPECT_TRUE(location.error().message.starts_with("'" + url + "' ")) << location.error().message;
    return location.error().message.substr(url.size() + 3);
  }
  EXPECT_EQ(location->url, url);
  return std::string(location->tls ? "https://" : "http://") + location->host +
         location->base_path + " list " + location->list_path + " prefix " + location->key_prefix +
         " in " + location->region;
}

TEST(S3Location, Amazon) {
  EXPECT_EQ(parsed("s3://models"),
            "https://models.s3.us-east-1.amazonaws.com/ list / prefix  in us-east-1");
  EXPECT_EQ(parsed("s3://models/Run 1/a%2Bb/?region=eu-west-1"),
            "https://models.s3.eu-west-1.amazonaws.com/Run 1/a+b/ list / prefix Run 1/a+b/ in "
            "eu-west-1");
  EXPECT_EQ(
      parsed("s3://my.models/x"),
      "https://s3.us-east-1.amazonaws.com/my.models/x/ list /my.models prefix x/ in us-east-1");
  EXPECT_EQ(parsed("s3://models/x?addressing=path"),
            "https://s3.us-east-1.amazonaws.com/models/x/ list /models prefix x/ in us-east-1");
}

TEST(S3Location, OtherEndpoints) {
  EXPECT_EQ(parsed("s3://models/x?endpoint=http://127.0.0.1:7480"),
            "http://127.0.0.1:7480/models/x/ list /models prefix x/ in us-east-1");
  EXPECT_EQ(parsed("s3://models/x?endpoint=https%3A%2F%2Fhost%2Fdeep%2Fpath/&region=auto"),
            "https://host/deep/path/models/x/ list /deep/path/models prefix x/ in auto");
  EXPECT_EQ(parsed("s3://models/x?endpoint=https://host/deep&addressing=virtual"),
            "https://models.host/deep/x/ list /deep/ prefix x/ in us-east-1");
}

TEST(S3Location, TheProfileFillsInWhatTheUrlLeavesOpen) {
  const S3Profile profile{std::nullopt, "eu-north-1", "http://ceph"};
  EXPECT_EQ(parsed("s3://models", profile),
            "http://ceph/models/ list /models prefix  in eu-north-1");
  EXPECT_EQ(parsed("s3://models?region=r&endpoint=http://other", profile),
            "http://other/models/ list /models prefix  in r");
}

TEST(S3Location, HuggingFace) {
  const S3Profile ignored{std::nullopt, "eu-north-1", "http://ceph"};
  EXPECT_EQ(parsed("hf://buckets/acme/models/run/1", ignored),
            "https://s3.hf.co/acme/models/run/1/ list /acme/models prefix run/1/ in us-east-1");
  for (const char* url : {"hf://models/acme/x", "hf://buckets/acme", "hf://buckets", "hf://",
                          "hf://buckets//models", "hf://buckets/acme/models?region=x"}) {
    EXPECT_NE(parsed(url).find("names no bucket"), std::string::npos) << url;
  }
}

TEST(S3Location, RefusesWhatIsNotOfThisForm) {
  for (const char* url : {"s3://", "s3:///x", "s3://ab", "s3://a..b", "s3://-models",
                          "s3://mod els/x", "s3://models@host/x"}) {
    EXPECT_NE(parsed(url).find("names no bucket"), std::string::npos) << url;
  }
  for (const char* url : {"s3://models//x", "s3://models/a//b", "s3://models/a/../b",
                          "s3://models/.", "s3://models/a%0Ab", "s3://models/a%5Cb"}) {
    EXPECT_NE(parsed(url).find("has a prefix with"), std::string::npos) << url;
  }
  EXPECT_NE(parsed("s3://models/" + std::string(401, 'a')).find("400 bytes"), std::string::npos);
  for (const char* url :
       {"s3://models?endpoint=ftp://host", "s3://models?endpoint=host",
        "s3://models?endpoint=http://", "s3://models?endpoint=http://u:p%40host",
        "s3://models?endpoint=http://host%0D%0AX:y", "s3://models?endpoint=http://host/a%3Fb"}) {
    EXPECT_NE(parsed(url).find("endpoint"), std::string::npos) << url;
  }
  EXPECT_NE(parsed("s3://models?region=a/b").find("no legal region"), std::string::npos);
  EXPECT_NE(parsed("s3://models?addressing=x").find("expected path or virtual"), std::string::npos);
  EXPECT_NE(parsed("s3://models?secret=x").find("has option 'secret=x'"), std::string::npos);
  EXPECT_NE(parsed("s3://models?region=a&region=b").find("twice"), std::string::npos);
  EXPECT_NE(parsed("s3://models/%zz").find("'%'"), std::string::npos);
}

}  // namespace
}  // namespace siltstone
