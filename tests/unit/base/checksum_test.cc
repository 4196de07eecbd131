#include "base/checksum.h"

#include <gtest/gtest.h>

#include <utility>

namespace siltstone {
namespace {

// Published vectors: FIPS 180-4 examples for SHA-256, the xxHash project's for XXH64.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256_hex(as_bytes("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(as_bytes("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(as_bytes(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// RFC 4231, cases 1, 2 and 6.
TEST(HmacSha256, KnownAnswers) {
  const auto hmac = [](const std::string& key, std::string_view message) {
    return to_hex(hmac_sha256(as_bytes(key), as_bytes(message)));
  };
  EXPECT_EQ(hmac(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hmac("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(
      hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Xxh64, KnownAnswers) {
  EXPECT_EQ(xxh64(as_bytes("")), 0xef46db3751d8e999U);
  EXPECT_EQ(xxh64(as_bytes("a")), 0xd24ec4f1a98c6e5bU);
  EXPECT_EQ(xxh64(as_bytes("abc")), 0x44bc2cf5ad770999U);
  EXPECT_EQ(xxh64(as_bytes("Nobody inspects the spammish repetition")), 0xfbcea83c8a378bf1U);
}

TEST(Checksums, PiecesGiveTheSameAsTheWhole) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7 + i / 256);
  for (size_t cut = 0; cut <= text.size(); cut += 37) {
    Sha256 sha;
    for (const std::string_view piece :
         {std::string_view(text).substr(0, cut), std::string_view(text).substr(cut)}) {
      sha.update(as_bytes(piece));
    }
    EXPECT_EQ(to_hex(sha.finish()), sha256_hex(as_bytes(text)));
  }
}

TEST(Sha256, MovesWithItsState) {
  Sha256 first;
  first.update(as_bytes("ab"));
  Sha256 second = std::move(first);
  second.update(as_bytes("c"));
  EXPECT_EQ(to_hex(second.finish()), sha256_hex(as_bytes("abc")));
}

}  // namespace
}  // namespace siltstone
