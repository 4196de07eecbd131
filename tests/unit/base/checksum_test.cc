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
