#include "store/s3_dialect.h"

#include <gtest/gtest.h>

#include <ctime>

namespace siltstone {
namespace {

S3Location location() {
  S3Profile profile;
  profile.endpoint = "http://127.0.0.1:9000";
  return *parse_s3_url("s3://models/policy", profile);
}

std::unique_ptr<HttpDialect> dialect(const S3Profile& profile = {}) {
  return make_s3_dialect(location(), profile);
}

HttpReply reply(int status, const std::string& code, const std::string& message = "") {
  HttpReply out;
  out.status = status;
  if (!code.empty())
    out.body = "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>" + message +
               "</Message></Error>";
  return out;
}

TEST(S3Message, IsReadFromErrors) {
  const S3Message message = parse_s3_message(reply(404, "NoSuchKey", "The key &lt;k&gt;").body);
  EXPECT_EQ(message.code, "NoSuchKey");
  EXPECT_EQ(message.text, "The key <k>");
}

TEST(S3Message, IsBoundedAndPrintable) {
  const S3Message message =
      parse_s3_message(reply(400, "X", "a\nb\x01" + std::string(5000, 'c')).body);
  EXPECT_EQ(message.text.size(), 200U);
  EXPECT_EQ(message.text.substr(0, 4), "a b ");
}

TEST(S3Message, IsEmptyWhereTheBodySaysNothing) {
  for (const char* body : {"", "<html>", "{}", "<Error/>", "<Other><Code>x</Code></Other>"}) {
    EXPECT_EQ(parse_s3_message(body).code, "") << body;
  }
}

std::string page(const std::string& inside) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult "
         "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
         inside + "</ListBucketResult>";
}

TEST(S3Page, IsRead) {
  const Result<S3Page> found =
      parse_s3_page(page("<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
                         "<Contents><Key>policy/a%2Bb</Key><Size>12</Size></Contents>"
                         "<Contents><Key>policy/c</Key><Size>18446744073709551615</Size></Contents>"
                         "<NextContinuationToken>t/1=</NextContinuationToken>"));
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->objects.size(), 2U);
  EXPECT_EQ(found->objects[0].key, "policy/a+b");
  EXPECT_EQ(found->objects[0].size_bytes, 12U);
  EXPECT_EQ(found->objects[1].size_bytes, UINT64_MAX);
  EXPECT_EQ(found->next, "t/1=");
}

TEST(S3Page, TakesKeysAsTheyAreUnlessEncoded) {
  const Result<S3Page> found =
      parse_s3_page(page("<Contents><Key>a%2Bb</Key><Size>1</Size></Contents>"));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->objects[0].key, "a%2Bb");
  EXPECT_EQ(found->next, "");
}

TEST(S3Page, RefusesWhatIsNone) {
  const std::string bomb =
      "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><ListBucketResult>"
      "<Contents><Key>&c;</Key><Size>x</Size></Contents></ListBucketResult>";
  for (const std::string& body :
       {std::string(), std::string("<html>oops"), std::string("<Error/>"), bomb,
        page("<Contents><Key>a</Key></Contents>"), page("<Contents><Size>1</Size></Contents>"),
        page("<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        page("<Contents><Key>a</Key><Size>18446744073709551616</Size></Contents>"),
        page("<Contents><Key>a</Key><Size>1 </Size></Contents>"),
        page("<EncodingType>url</EncodingType><Contents><Key>a%2</Key><Size>1</Size></Contents>"),
        page("<IsTruncated>true</IsTruncated>")}) {
    const Result<S3Page> found = parse_s3_page(body);
    ASSERT_FALSE(found) << body;
    EXPECT_TRUE(found.error().code == Code::kCorrupt ||
                found.error().code == Code::kInvalidArgument);
  }
}

TEST(S3Dialect, SaysWhatToDo) {
  const struct {
    HttpReply reply;
    Code code;
    const char* says;
  } cases[] = {
      {reply(404, "NoSuchKey"), Code::kNotFound, "404"},
      {reply(404, ""), Code::kNotFound, "404"},
      {reply(404, "NoSuchBucket"), Code::kInvalidArgument, "make the bucket first"},
      {reply(403, "SignatureDoesNotMatch"), Code::kPermission, "secret key"},
      {reply(403, "InvalidAccessKeyId"), Code::kPermission, "access key"},
      {reply(403, "RequestTimeTooSkewed"), Code::kPermission, "clock"},
      {reply(403, "AccessDenied"), Code::kPermission, "AWS_ACCESS_KEY_ID"},
      {reply(403, ""), Code::kPermission, "no credentials"},
      {reply(412, "PreconditionFailed"), Code::kConflict, "412"},
      {reply(501, "NotImplemented"), Code::kUnsupported, "lacks"},
      {reply(503, "SlowDown"), Code::kUnavailable, "SlowDown"},
      {reply(507, ""), Code::kIo, "507"},
      {reply(418, ""), Code::kInvalidArgument, "418"},
  };
  for (const auto& each : cases) {
    const Error error = dialect()->explain(each.reply);
    EXPECT_EQ(error.code, each.code) << error.message;
    EXPECT_NE(error.message.find(each.says), std::string::npos) << error.message;
  }
}

TEST(S3Dialect, NamesTheRegionThatTheBucketIsIn) {
  HttpReply moved = reply(301, "PermanentRedirect");
  moved.headers["x-amz-bucket-region"] = "eu-west-1";
  const Error error = dialect()->explain(moved);
  EXPECT_EQ(error.code, Code::kInvalidArgument);
  EXPECT_NE(error.message.find("eu-west-1"), std::string::npos) << error.message;
}

TEST(S3Dialect, NoticesAClockThatIsOff) {
  HttpReply refused = reply(403, "");
  const std::time_t then = std::time(nullptr) + 3600;
  char date[64];
  std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", std::gmtime(&then));
  refused.headers["date"] = date;
  EXPECT_NE(dialect()->explain(refused).message.find("60 minutes behind"), std::string::npos)
      << dialect()->explain(refused).message;
}

TEST(S3Dialect, SignsOnlyWithCredentials) {
  HttpAttempt attempt;
  attempt.name = "log/main/0.json";
  const HttpRequest open = dialect()->make(attempt);
  EXPECT_EQ(open.url, "http://127.0.0.1:9000/models/policy/log/main/0.json");
  EXPECT_TRUE(open.headers.empty());
  S3Profile profile;
  profile.credentials = S3Credentials{"key", "hidden", "token"};
  const HttpRequest sealed = dialect(profile)->make(attempt);
  EXPECT_EQ(sealed.url, open.url);
  EXPECT_EQ(sealed.headers.size(), 4U);
  for (const auto& [name, value] : sealed.headers)
    EXPECT_EQ(value.find("hidden"), std::string::npos) << name;
}

TEST(S3Dialect, AsksAgainWhenConditionalWritesMeet) {
  HttpAttempt put;
  put.method = "PUT";
  EXPECT_TRUE(dialect()->is_passing(put, reply(409, "ConditionalRequestConflict")));
  EXPECT_TRUE(dialect()->is_passing(put, reply(400, "RequestTimeout")));
  EXPECT_FALSE(dialect()->is_passing(put, reply(412, "PreconditionFailed")));
  EXPECT_FALSE(dialect()->is_passing(put, reply(403, "AccessDenied")));
}

}  // namespace
}  // namespace siltstone
