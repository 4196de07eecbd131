#include "store/s3_signature.h"

#include <gtest/gtest.h>

#include "base/checksum.h"

namespace siltstone {
namespace {

// The examples that Amazon publishes with the specification.
const S3Credentials kExample = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                ""};
constexpr std::time_t kExampleTime = 1'369'353'600;  // 2013-05-24T00:00:00Z

std::string header(const SignedRequest& request, const std::string& name) {
  for (const auto& [key, value] : request.headers)
    if (key == name) return value;
  return "<none>";
}

std::string signature_of(const S3Request& request) {
  const SignedRequest out = sign(request, kExample, "us-east-1", kExampleTime);
  const std::string authorization = header(out, "authorization");
  EXPECT_TRUE(
      authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
                                "us-east-1/s3/aws4_request,SignedHeaders="))
      << authorization;
  return authorization.substr(authorization.find("Signature=") + 10);
}

S3Request example(std::string method, std::string path) {
  S3Request request;
  request.method = std::move(method);
  request.host = "examplebucket.s3.amazonaws.com";
  request.path = std::move(path);
  request.payload_sha256 = sha256_hex(as_bytes(""));
  return request;
}

TEST(S3Signature, GetOfARange) {
  S3Request request = example("GET", "/test.txt");
  request.headers = {{"range", "bytes=0-9"}};
  EXPECT_EQ(signature_of(request),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3Signature, PutOfAKeyThatIsEncoded) {
  S3Request request = example("PUT", "/test$file.text");
  request.headers = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                     {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  request.payload_sha256 = sha256_hex(as_bytes("Welcome to Amazon S3."));
  EXPECT_EQ(signature_of(request),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3Signature, ANameWithoutAValue) {
  S3Request request = example("GET", "/");
  request.query = {{"lifecycle", ""}};
  EXPECT_EQ(signature_of(request),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(S3Signature, AQueryInAnyOrder) {
  S3Request request = example("GET", "/");
  request.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_EQ(signature_of(request),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(S3Signature, TheTargetIsWhatWasSigned) {
  S3Request request = example("GET", "/a b/+~\xc3\xa9=&?%/c");
  request.query = {{"x y", "/&="}, {"A", "1"}, {"A-b", ""}, {"A", "0"}};
  const SignedRequest out = sign(request, kExample, "us-east-1", kExampleTime);
  EXPECT_EQ(out.target, "/a%20b/%2B~%C3%A9%3D%26%3F%25/c?A=0&A=1&A-b=&x%20y=%2F%26%3D");
  EXPECT_EQ(header(out, "x-amz-date"), "20130524T000000Z");
  EXPECT_EQ(header(out, "x-amz-security-token"), "<none>");
  EXPECT_EQ(header(out, "host"), "<none>");
}

TEST(S3Signature, ASessionTokenIsSentAndSigned) {
  S3Credentials temporary = kExample;
  temporary.session_token = "TOKEN";
  const SignedRequest out = sign(example("GET", "/"), temporary, "us-east-1", kExampleTime);
  EXPECT_EQ(header(out, "x-amz-security-token"), "TOKEN");
  EXPECT_NE(header(out, "authorization").find("x-amz-security-token,Signature"), std::string::npos);
}

TEST(S3Signature, SpacesInAHeaderAreSignedAsOne) {
  S3Request one = example("GET", "/");
  one.headers = {{"range", "bytes=0-9 x"}};
  S3Request more = one;
  more.headers = {{"range", "  bytes=0-9 \t  x "}};
  EXPECT_EQ(signature_of(one), signature_of(more));
}

}  // namespace
}  // namespace siltstone
