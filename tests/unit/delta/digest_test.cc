#include "delta/digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "delta/diff.h"
#include "delta/kernels/digest_keys.h"

namespace siltstone {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(size_t size, std::mt19937_64* random) {
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>((*random)());
  return bytes;
}

Bytes counting_bytes(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

// 20,001 bytes of no period that divides a block: three blocks, the last word partial.
Bytes patterned_bytes() {
  Bytes bytes(20001);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((7 * i + 3) % 251);
  return bytes;
}

// The numbers of docs/format/digest.md.
TEST(Digest, GivesTheAnswersOfTheDocument) {
  EXPECT_EQ(kDigestKeys.key[0], 0xebb7b760c593f24b);
  EXPECT_EQ(kDigestKeys.key[34], 0x17538e0c0de5e0e6);
  EXPECT_EQ(kDigestKeys.key[1055], 0xf8441d8bc382153f);
  EXPECT_EQ(digest_factor_a(0), 0xe220a8397b1dcdaf);
  EXPECT_EQ(digest_factor_b(1), 0xf3203e9039f4a821);

  const Bytes twenty = counting_bytes(20);
  const Sum128 sum = digest_bytes(twenty, 0);
  EXPECT_EQ(sum, (Sum128{0xf4ea5937994ff630, 0x938e6987aae1f32f}));
  EXPECT_EQ(to_hex(sum), "30f64f993759eaf42ff3e1aa87698e93");
  EXPECT_EQ(digest_bytes(ByteSpan(twenty).first(8), 0),
            (Sum128{0x3bfcbd330478e2f4, 0x41e7ce77d0e0d5ef}));
  EXPECT_EQ(digest_bytes(ByteSpan(twenty).subspan(8), 8),
            (Sum128{0xb8ed9c0494d7133c, 0x51a69b0fda011d40}));
}

TEST(Digest, GivesKnownAnswersOverSeveralBlocksAndFarOut) {
  const Bytes bytes = patterned_bytes();
  EXPECT_EQ(digest_bytes(bytes, 0), (Sum128{0xb7849a09f7b7ce9f, 0x22d560cba4c5f767}));
  const uint64_t far = ((uint64_t{1} << 38) + 5) * 8;  // beyond 2^41 bytes
  EXPECT_EQ(digest_bytes(bytes, far), (Sum128{0xe172bdf451bd8062, 0x72c7f8ed065c2485}));
}

TEST(Digest, OfNothingIsZero) {
  EXPECT_EQ(digest_bytes({}, 0), Sum128{});
  EXPECT_EQ(digest_bytes({}, 8000), Sum128{});
}

TEST(Digest, AddsUpOverSlices) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const Bytes bytes = random_bytes(random() % 40000, &random);
    const uint64_t start = random() % (uint64_t{1} << 45) * 8;
    Sum128 sum;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = std::min((1 + random() % 2000) * 8, bytes.size() - at);
      sum += digest_bytes(ByteSpan(bytes).subspan(at, length), start + at);
      at += length;
    }
    EXPECT_EQ(sum, digest_bytes(bytes, start)) << bytes.size() << " bytes at " << start;
  }
}

TEST(Digest, SeesEveryBitFlip) {
  std::mt19937_64 random(2);
  for (Bytes bytes : {random_bytes(8196, &random), Bytes(8196), Bytes(8196, std::byte{0xff})}) {
    const Sum128 before = digest_bytes(bytes, 0);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      // The sum of the word alone stands for the whole: additivity is tested above.
      const size_t word = bit / 64 * 8;
      const ByteSpan part = ByteSpan(bytes).subspan(word, std::min<size_t>(8, 8196 - word));
      const Sum128 old_part = digest_bytes(part, word);
      bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      ASSERT_NE(before - old_part + digest_bytes(part, word), before) << "bit " << bit;
      bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
  }
}

// Where a lane's sum of one half is zero, that lane is blind to the other half; the key of the
// other lane differs in both halves, so that lane sees it (docs/format/digest.md).
TEST(Digest, SeesAChangeOfOneHalfEvenWhereALaneIsBlind) {
  for (size_t j = 0; j < kDigestBlockWords; ++j) {
    const uint64_t key_a = kDigestKeys.key[j];
    const uint64_t key_b = kDigestKeys.key[j + kDigestLaneShift];
    ASSERT_NE(static_cast<uint32_t>(key_a), static_cast<uint32_t>(key_b)) << j;
    ASSERT_NE(key_a >> 32, key_b >> 32) << j;
  }
  std::byte word[8];
  for (const size_t j : {size_t{0}, size_t{31}, size_t{992}, size_t{1023}}) {
    const uint64_t blind_high = (uint64_t{0} - (kDigestKeys.key[j] >> 32)) << 32;
    store_le(word, blind_high | 1);
    const Sum128 one = digest_bytes(word, j * 8);
    store_le(word, blind_high | 2);
    const Sum128 two = digest_bytes(word, j * 8);
    EXPECT_EQ(one.a, two.a);
    EXPECT_NE(one.b, two.b);
  }
}

TEST(Digest, SeesMovedWordsAndBlocks) {
  std::mt19937_64 random(3);
  const Bytes bytes = random_bytes(4 * 8192, &random);
  const Sum128 before = digest_bytes(bytes, 0);
  const auto swapped = [&](size_t a, size_t b, size_t length) {
    Bytes other = bytes;
    std::swap_ranges(other.begin() + static_cast<ptrdiff_t>(a),
                     other.begin() + static_cast<ptrdiff_t>(a + length),
                     other.begin() + static_cast<ptrdiff_t>(b));
    return digest_bytes(other, 0);
  };
  for (size_t word = 8; word < bytes.size(); word += 8) {
    ASSERT_NE(swapped(0, word, 8), before) << word;
    ASSERT_NE(swapped(word - 8, word, 8), before) << word;
  }
  ASSERT_NE(swapped(32 * 8, 64 * 8, 8), before);  // keys of lane a meet those of lane b
  for (size_t block = 1; block < 4; ++block) EXPECT_NE(swapped(0, block * 8192, 8192), before);
  EXPECT_NE(swapped(0, 4, 4), before);  // the halves of one word
}

TEST(Digest, SeesZerosAtTheEnd) {
  std::set<std::string> sums;
  for (size_t words = 0; words < 3000; ++words)
    sums.insert(to_hex(digest_bytes(Bytes(words * 8), 0)));
  EXPECT_EQ(sums.size(), 3000U);
}

TEST(DigestChange, EqualsTheDifferenceOfFullSums) {
  std::mt19937_64 random(4);
  for (const unsigned word_bytes : {1U, 2U, 4U, 8U}) {
    for (const double density : {0.0, 0.001, 0.1, 1.0}) {
      for (int round = 0; round < 20; ++round) {
        const size_t elements = round == 0 ? 65536 : random() % 5000;
        const uint64_t start = random() % (uint64_t{1} << 44) * 8;
        const Bytes old_bytes = random_bytes(elements * word_bytes, &random);
        Bytes new_bytes = old_bytes;
        std::bernoulli_distribution changes(density);
        for (size_t i = 0; i < elements; ++i) {
          if (changes(random))
            new_bytes[i * word_bytes] ^= static_cast<std::byte>(1 + random() % 255);
        }
        // The tail of every length that is no multiple of 8 counts too.
        if (elements > 0) new_bytes.back() ^= std::byte{0x80};
        ChangeList list(word_bytes);
        list.append(new_bytes, old_bytes);
        EXPECT_EQ(digest_change(old_bytes, new_bytes, list.positions(), word_bytes, start),
                  digest_bytes(new_bytes, start) - digest_bytes(old_bytes, start))
            << word_bytes << "-byte words, " << elements << " elements at " << start;
      }
    }
  }
}

TEST(SumText, RoundTripsAndRefusesOtherText) {
  const Sum128 sum{0x0123456789abcdef, 0xfedcba9876543210};
  EXPECT_EQ(to_hex(sum), "efcdab89674523011032547698badcfe");
  Sum128 read;
  ASSERT_TRUE(sum_from_hex(to_hex(sum), &read));
  EXPECT_EQ(read, sum);
  for (const char* text :
       {"", "efcdab89674523011032547698badcf", "efcdab89674523011032547698badcfe0",
        "EFcdab89674523011032547698badcfe", "xfcdab89674523011032547698badcfe"}) {
    EXPECT_FALSE(sum_from_hex(text, &read)) << text;
    EXPECT_EQ(read, sum) << "refused text must leave the result alone";
  }
}

TEST(StateRoot, GivesTheAnswersOfTheDocument) {
  const std::vector<StateRow> rows = {
      {"model.norm.weight", DType::kBF16, {10}, digest_bytes(counting_bytes(20), 0)},
      {"token_type_ids", DType::kI64, {0, 4}, {}},
  };
  EXPECT_EQ(state_root(rows), "6658988412b6895b3dffb98ecdb408849eecd474b2b711119ff0cebfb1adc1e4");
  EXPECT_EQ(state_root({}), "15395e344043ab7e0d22779c8a08560e290467578da1e7816df8542c4590fa05");
}

TEST(StateRoot, DependsOnEveryField) {
  const StateRow row{"w", DType::kBF16, {6, 4}, {1, 2}};
  std::set<std::string> roots = {state_root({&row, 1})};
  const auto add = [&](StateRow changed) { roots.insert(state_root({&changed, 1})); };
  add({"v", DType::kBF16, {6, 4}, {1, 2}});
  add({"w", DType::kF16, {6, 4}, {1, 2}});
  add({"w", DType::kBF16, {4, 6}, {1, 2}});
  add({"w", DType::kBF16, {24}, {1, 2}});
  add({"w", DType::kBF16, {6, 4, 1}, {1, 2}});
  add({"w", DType::kBF16, {6, 4}, {3, 2}});
  add({"w", DType::kBF16, {6, 4}, {1, 3}});
  EXPECT_EQ(roots.size(), 8U);
}

}  // namespace
}  // namespace siltstone
