#include "delta/diff.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <random>
#include <vector>

#include "base/bf16.h"

namespace siltstone {
namespace {

struct Buffers {
  Buffers(unsigned word_bytes, size_t elements, double density, uint64_t seed)
      : base(elements * word_bytes) {
    std::mt19937_64 random(seed);
    for (std::byte& b : base) b = static_cast<std::byte>(random());
    next = base;
    std::bernoulli_distribution changes(density);
    for (size_t i = 0; i < elements; ++i) {
      if (!changes(random)) continue;
      next[i * word_bytes + random() % word_bytes] ^= std::byte{0x10};
      changed.push_back(i);
    }
  }
  std::vector<std::byte> base;
  std::vector<std::byte> next;
  std::vector<uint64_t> changed;
};

// Where the list says that changes are, counted from the start of what was appended.
std::vector<uint64_t> element_indices(const ChangeList& list) {
  std::vector<uint64_t> indices;
  uint64_t at = 0;
  for (size_t run = 0; run < list.run_ends().size(); ++run) {
    for (; at < list.run_ends()[run]; ++at) {
      indices.push_back(run * kRunElements + list.positions()[at]);
    }
  }
  EXPECT_EQ(at, list.changed());
  return indices;
}

void expect_list(const ChangeList& list, const Buffers& buffers, unsigned word_bytes) {
  EXPECT_EQ(list.changed(), buffers.changed.size());
  EXPECT_EQ(element_indices(list), buffers.changed);
  ASSERT_EQ(list.words().size(), buffers.changed.size() * word_bytes);
  for (size_t i = 0; i < buffers.changed.size(); ++i) {
    ASSERT_EQ(0, std::memcmp(list.words().data() + i * word_bytes,
                             buffers.next.data() + buffers.changed[i] * word_bytes, word_bytes));
  }
}

constexpr size_t kLengths[] = {0, 1, 100, 65535, 65536, 65537, 2 * 65536, 200001};

TEST(ChangeList, ListsWhatDiffersInRuns) {
  ChangeList list;
  for (const unsigned word_bytes : {1U, 2U, 4U, 8U}) {
    for (const size_t elements : kLengths) {
      for (const double density : {0.0, 0.01, 1.0}) {
        SCOPED_TRACE(testing::Message()
                     << word_bytes << " bytes, " << elements << " elements, " << density);
        Buffers buffers(word_bytes, elements, density, elements);
        list.clear(word_bytes);
        list.append(buffers.next, buffers.base);
        expect_list(list, buffers, word_bytes);
        EXPECT_EQ(list.run_ends().size(), ceil_div(elements, kRunElements));

        list.clear(word_bytes);
        list.append_refresh(buffers.next, buffers.base);
        expect_list(list, buffers, word_bytes);
        EXPECT_EQ(buffers.base, buffers.next);
      }
    }
  }
}

TEST(ChangeList, AppendsAfterWholeRuns) {
  Buffers buffers(4, 3 * 65536 + 9, 0.02, 5);
  ChangeList list(4);
  const ByteSpan next(buffers.next);
  const ByteSpan base(buffers.base);
  const size_t first = 65536 * 4;
  list.append(next.first(first), base.first(first));
  list.append(next.subspan(first), base.subspan(first));
  expect_list(list, buffers, 4);
  EXPECT_EQ(list.run_ends().size(), 4U);
}

TEST(ChangeList, AllocatesNothingOnceItHasGrown) {
  Buffers dense(8, 150000, 1, 6);
  Buffers sparse(2, 150000, 0.5, 7);
  ChangeList list(8);
  list.append(dense.next, dense.base);
  const uint16_t* positions = list.positions().data();
  const std::byte* words = list.words().data();
  for (int round = 0; round < 3; ++round) {
    list.clear(2);
    list.append(sparse.next, sparse.base);
    EXPECT_EQ(list.positions().data(), positions);
    EXPECT_EQ(list.words().data(), words);
    list.clear(8);
    list.append(dense.next, dense.base);
    EXPECT_EQ(list.positions().data(), positions);
    EXPECT_EQ(list.words().data(), words);
  }
}

// Zeros that take no memory, as long as nobody writes to them.
class SparseZeros {
 public:
  explicit SparseZeros(size_t size) : size_(size) {
    map_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (map_ == MAP_FAILED) std::abort();
    madvise(map_, size, MADV_HUGEPAGE);
  }
  ~SparseZeros() { munmap(map_, size_); }
  SparseZeros(const SparseZeros&) = delete;
  SparseZeros& operator=(const SparseZeros&) = delete;
  MutByteSpan bytes() { return {static_cast<std::byte*>(map_), size_}; }

 private:
  size_t size_;
  void* map_;
};

TEST(ChangeList, CountsPositionsBeyondTwoToTheThirtyOne) {
  const uint64_t elements = (uint64_t{1} << 31) + 3 * kRunElements + 17;
  SparseZeros base(elements);
  SparseZeros next(elements);
  const std::vector<uint64_t> changed = {5, (uint64_t{1} << 31) - 1, uint64_t{1} << 31,
                                         (uint64_t{1} << 31) + kRunElements + 12, elements - 1};
  for (const uint64_t index : changed) next.bytes()[index] = std::byte{1};
  ChangeList list(1);
  list.append_refresh(next.bytes(), base.bytes());
  EXPECT_EQ(element_indices(list), changed);
  for (const uint64_t index : changed) EXPECT_EQ(base.bytes()[index], std::byte{1});
}

TEST(ChangeList, ListsChangesOfMastersLikeThoseOfTheirRoundedWords) {
  ChangeList plain;
  ChangeList cast;
  ChangeList refreshed;
  for (const size_t elements : kLengths) {
    for (const double density : {0.0, 0.01, 1.0}) {
      const Buffers buffers(2, elements, density, elements + 5);
      std::vector<std::byte> f32(elements * 4);
      std::vector<std::byte> next(elements * 2);
      std::mt19937_64 random(elements);
      for (size_t i = 0; i < elements; ++i) {
        const auto word = load_le<uint16_t>(buffers.next.data() + 2 * i);
        const uint32_t master = uint32_t{word} << 16 | (random() & 0x7fff);
        store_le(f32.data() + 4 * i, master);
        store_le(next.data() + 2 * i, bf16_of_f32(master));
      }
      std::vector<std::byte> found(elements * 2);
      std::vector<std::byte> base = buffers.base;
      plain.clear(2);
      plain.append(next, base);
      cast.clear(2);
      cast.append_cast(f32, base, found);
      refreshed.clear(2);
      refreshed.append_cast_refresh(f32, base);
      EXPECT_EQ(found, next);
      EXPECT_EQ(base, next);
      for (const ChangeList* list : {&cast, &refreshed}) {
        EXPECT_EQ(element_indices(*list), element_indices(plain));
        EXPECT_TRUE(std::ranges::equal(list->words(), plain.words()));
      }
      EXPECT_TRUE(std::ranges::equal(cast.replaced_words(), plain.replaced_words()));
    }
  }
}

}  // namespace
}  // namespace siltstone
