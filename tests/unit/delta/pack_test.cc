#include "delta/pack.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "delta/section.h"
#include "support/plain_change.h"

namespace siltstone {
namespace {

using Metadata = std::vector<std::pair<std::string, std::string>>;

const Metadata kMetadata = {{"siltstone.format", "1"},
                            {"siltstone.from", "aa"},
                            {"siltstone.kind", "delta"},
                            {"siltstone.to", "bb"}};

std::string pack_of(const std::vector<PackEntry>& entries, const Metadata& metadata = kMetadata) {
  std::string pack = pack_prefix(entries, metadata);
  for (const PackEntry& entry : entries) pack += as_text(entry.sections);
  return pack;
}

// A pack whose header is this text, padded to 64, before `data_bytes` zeros.
std::string pack_with_header(std::string json, size_t data_bytes) {
  json.resize(align_up(json.size() + 8, 64) - 8, ' ');
  std::string pack(8, '\0');
  store_le(pack.data(), uint64_t{json.size()});
  return pack + json + std::string(data_bytes, '\0');
}

const std::string kMetadataJson =
    R"("__metadata__":{"siltstone.format":"1","siltstone.kind":"delta",)"
    R"("siltstone.from":"aa","siltstone.to":"bb"})";

const std::string kSum(32, '1');
const std::string kHash(64, '2');

// A header's begin with tables; sums that are not given are left out.
std::string tables(const std::optional<std::string>& sums, const std::string& chunks) {
  std::string json = "{" + kMetadataJson;
  json.back() = ',';
  if (sums) json += R"("siltstone.sums":")" + *sums + R"(",)";
  return json + R"("siltstone.chunks":")" + chunks + R"("},)";
}

Result<PackIndex> parse(const std::string& pack) {
  return parse_pack_index(as_bytes(pack), pack.size());
}

TEST(Pack, IndexComesBack) {
  const std::string pack = pack_of({{"b", std::vector<std::byte>(32, std::byte{1})},
                                    {"a.\xC3\xA9", std::vector<std::byte>(16, std::byte{2})}});
  const Result<PackIndex> index = parse(pack);
  ASSERT_TRUE(index) << index.error().message;
  ASSERT_EQ(index->entries.size(), 2u);
  EXPECT_EQ(index->entries[0].tensor, "b");
  EXPECT_EQ(index->entries[0].size_bytes, 32u);
  EXPECT_EQ(index->entries[0].offset_bytes % 64, 0u);
  EXPECT_EQ(index->entries[1].tensor, "a.\xC3\xA9");
  EXPECT_EQ(index->entries[1].offset_bytes, index->entries[0].offset_bytes + 32);
  EXPECT_EQ(pack[index->entries[1].offset_bytes], 2);
  EXPECT_EQ(index->metadata.size(), 4u);
}

TEST(Pack, MayHoldNoEntries) {
  const std::string pack = pack_of({});
  const Result<PackIndex> index = parse(pack);
  ASSERT_TRUE(index) << index.error().message;
  EXPECT_TRUE(index->entries.empty());
  EXPECT_EQ(pack.size() % 64, 0u);
}

TEST(Pack, TablesTellSumsAndHashes) {
  const auto sections = [](size_t elements, uint64_t seed) {
    std::vector<std::byte> was(2 * elements);
    for (std::byte& byte : was) byte = static_cast<std::byte>(seed = seed * 5 + 3);
    std::vector<std::byte> is = was;
    for (std::byte& byte : is) byte ^= std::byte{1};
    const Sum128 before = digest_bytes(was, 0);
    const Sum128 after = digest_bytes(is, 0);
    const test::PlainChange change(DType::kBF16, kDefaultLog2Block, std::move(was), std::move(is));
    std::vector<std::byte> out;
    EXPECT_TRUE(
        append_section(change.view(), {0, elements, 0, 1}, before, after, find_codec("raw"), &out));
    return out;
  };
  std::vector<PackEntry> entries = {{"a", sections(40'000, 1)}, {"b", sections(70'000, 2)}};
  Metadata metadata = kMetadata;
  const auto found = pack_tables(entries, /*chunks=*/true);
  ASSERT_TRUE(found) << found.error().message;
  metadata.insert(metadata.end(), found->begin(), found->end());
  const std::string pack = pack_of(entries, metadata);
  const Result<PackIndex> index = parse(pack);
  ASSERT_TRUE(index) << index.error().message;
  ASSERT_EQ(index->sums.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const SectionHeader header = *parse_section_header(entries[i].sections);
    EXPECT_EQ(index->sums[i], header.sum_after - header.sum_before);
  }
  const ByteSpan data = as_bytes(pack).subspan(index->data_begin);
  ASSERT_EQ(index->chunks.size(), ceil_div(data.size(), kChunkBytes));
  ASSERT_GT(index->chunks.size(), 2u);
  for (size_t i = 0; i < index->chunks.size(); ++i) {
    const uint64_t begin = i * kChunkBytes;
    EXPECT_EQ(index->chunks[i],
              sha256(data.subspan(begin, std::min(kChunkBytes, data.size() - begin))));
  }
  ChunkHashes hashes(index->data_begin);
  for (size_t at = 0; at < pack.size(); at += 100'000)
    hashes.update(as_bytes(pack).subspan(at, std::min<size_t>(100'000, pack.size() - at)));
  EXPECT_EQ(hashes.finish(), index->chunks);
  entries[1].sections.resize(entries[1].sections.size() - 4);
  EXPECT_FALSE(pack_tables(entries, /*chunks=*/true));
}

TEST(Pack, IndexNeedsOnlyThePrefix) {
  const std::string pack = pack_of({{"t", std::vector<std::byte>(4096)}});
  const size_t prefix_bytes = pack.size() - 4096;
  EXPECT_TRUE(parse_pack_index(as_bytes(pack).first(prefix_bytes), pack.size()));
  for (size_t length = 0; length < prefix_bytes; ++length)
    EXPECT_EQ(parse_pack_index(as_bytes(pack).first(length), pack.size()).error().code,
              Code::kCorrupt);
}

TEST(Pack, RefusesAnotherObjectSize) {
  const std::string pack = pack_of({{"t", std::vector<std::byte>(64)}});
  EXPECT_FALSE(parse_pack_index(as_bytes(pack), pack.size() + 16));
  EXPECT_FALSE(parse_pack_index(as_bytes(pack), pack.size() - 16));
}

struct BadHeader {
  const char* name;
  std::string json;
  size_t data_bytes;
  Code code = Code::kCorrupt;
};

TEST(Pack, RefusesWhatIsNoDeltaPack) {
  const std::string good = R"("t":{"dtype":"U8","shape":[16],"data_offsets":[0,16]})";
  ASSERT_TRUE(parse(pack_with_header("{" + kMetadataJson + "," + good + "}", 16)));
  const BadHeader cases[] = {
      {"no metadata", "{" + good + "}", 16},
      {"no format", R"({"__metadata__":{"siltstone.kind":"delta"},)" + good + "}", 16},
      {"newer format", R"({"__metadata__":{"siltstone.format":"2"},)" + good + "}", 16,
       Code::kUnsupported},
      {"no kind", R"({"__metadata__":{"siltstone.format":"1"},)" + good + "}", 16},
      {"other kind",
       R"({"__metadata__":{"siltstone.format":"1","siltstone.kind":"anchor"},)" + good + "}", 16},
      {"no roots",
       R"({"__metadata__":{"siltstone.format":"1","siltstone.kind":"delta"},)" + good + "}", 16},
      {"signed bytes",
       "{" + kMetadataJson + R"(,"t":{"dtype":"I8","shape":[16],"data_offsets":[0,16]}})", 16},
      {"two dimensions",
       "{" + kMetadataJson + R"(,"t":{"dtype":"U8","shape":[4,4],"data_offsets":[0,16]}})", 16},
      {"empty entry",
       "{" + kMetadataJson + R"(,"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0},
      {"entry of 22 bytes",
       "{" + kMetadataJson + R"(,"t":{"dtype":"U8","shape":[22],"data_offsets":[0,22]}})", 22},
      {"hole", "{" + kMetadataJson + R"(,"t":{"dtype":"U8","shape":[16],"data_offsets":[16,32]}})",
       32},
      {"bytes left over", "{" + kMetadataJson + "," + good + "}", 32},
      {"same entry twice", "{" + kMetadataJson + "," + good + "," + good + "}", 16},
      {"no JSON", "no", 0},
      {"hashes without sums", tables({}, kHash) + good + "}", 16},
      {"no sum for the entry", tables("", kHash) + good + "}", 16},
      {"a sum too many", tables(kSum + kSum, kHash) + good + "}", 16},
      {"a sum cut off", tables(kSum.substr(1), kHash) + good + "}", 16},
      {"a sum in capitals", tables(std::string(32, 'A'), kHash) + good + "}", 16},
      {"no hash for the chunk", tables(kSum, "") + good + "}", 16},
      {"a hash too many", tables(kSum, kHash + kHash) + good + "}", 16},
      {"a hash of other signs", tables(kSum, std::string(64, '-')) + good + "}", 16},
  };
  for (const BadHeader& bad : cases) {
    SCOPED_TRACE(bad.name);
    const Result<PackIndex> index = parse(pack_with_header(bad.json, bad.data_bytes));
    ASSERT_FALSE(index);
    EXPECT_EQ(index.error().code, bad.code) << index.error().message;
  }
}

TEST(Pack, RefusesDataThatStartUnaligned) {
  std::string json =
      "{" + kMetadataJson + R"(,"t":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})";
  json.resize(align_up(json.size() + 8, 64) - 8 + 16, ' ');
  std::string pack(8, '\0');
  store_le(pack.data(), uint64_t{json.size()});
  pack += json + std::string(16, '\0');
  const Result<PackIndex> index = parse(pack);
  ASSERT_FALSE(index);
  EXPECT_NE(index.error().message.find("multiple of 64"), std::string::npos);
}

}  // namespace
}  // namespace siltstone
