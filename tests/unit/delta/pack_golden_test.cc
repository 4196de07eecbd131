// The golden packs of docs/format/delta_pack.md: tests/golden/make_packs.cc writes them.
#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "delta/pack.h"
#include "delta/section.h"
#include "golden/pack_cases.h"

namespace siltstone {
namespace {

using Words = std::vector<std::byte>;
namespace fs = std::filesystem;

fs::path folder(const std::string& kind) {
  return fs::path(SILTSTONE_TEST_DATA) / "golden" / kind / "pack";
}

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

Json load_json(const fs::path& path) {
  return Json::parse(slurp(path));
}

Words unhex(const std::string& text) {
  Words bytes(text.size() / 2);
  EXPECT_TRUE(from_hex(text, bytes));
  return bytes;
}

Words old_bytes(const Json& tensor) {
  const Json& old = tensor["old"];
  if (old.is_string()) return unhex(old.get<std::string>());
  const Words repeat = unhex(old["repeat"].get<std::string>());
  Words bytes(old["bytes"].get<size_t>());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = repeat[i % repeat.size()];
  return bytes;
}

Words new_bytes(const Json& tensor) {
  if (tensor["new"].is_string()) return unhex(tensor["new"].get<std::string>());
  Words bytes = old_bytes(tensor);
  for (const Json& patch : tensor["new"]["patches"])
    bytes[patch[0].get<size_t>()] = unhex(patch[1].get<std::string>())[0];
  return bytes;
}

TensorInfo tensor_info(const Json& tensor) {
  const DTypeInfo* dtype = find_dtype(tensor["dtype"].get<std::string>());
  const auto shape = tensor["shape"].get<std::vector<int64_t>>();
  return {tensor["name"].get<std::string>(), dtype->dtype, shape,
          *tensor_size_bytes(dtype->dtype, shape)};
}

Words gather(const std::vector<ByteRange>& ranges, const Words& tensor) {
  Words words;
  for (const ByteRange& range : ranges)
    for (uint64_t i = 0; i < range.length; ++i) words.push_back(tensor[range.offset + i]);
  return words;
}

// `earlier` may be empty.
Status apply_tile(const Section& section, const WordMatrix& matrix, const Words& earlier,
                  Words* tensor) {
  const SectionHeader& header = section.header();
  const auto ranges = tile_ranges(matrix, header.tile, 0, header.elements());
  Words words = gather(ranges, *tensor);
  const Words before = earlier.empty() ? Words() : gather(ranges, earlier);
  const uint64_t block_bytes = uint64_t{matrix.word_bytes} << header.log2_block;
  uint64_t changed = 0;
  for (uint64_t block = 0; block < header.blocks(); ++block) {
    const uint64_t begin = block * block_bytes;
    const uint64_t length = std::min<uint64_t>(block_bytes, words.size() - begin);
    const auto count =
        section.apply(block, MutByteSpan(words).subspan(begin, length),
                      before.empty() ? ByteSpan() : ByteSpan(before).subspan(begin, length));
    if (!count) return count.error();
    changed += *count;
  }
  if (changed != header.changed) return Error{Code::kCorrupt, "changes do not add up"};
  Sum128 sum;
  size_t at = 0;
  for (const ByteRange& range : ranges) {
    std::copy_n(words.begin() + static_cast<ptrdiff_t>(at), range.length,
                tensor->begin() + static_cast<ptrdiff_t>(range.offset));
    at += range.length;
    sum += digest_bytes(ByteSpan(*tensor).subspan(range.offset, range.length), range.offset);
  }
  if (sum != header.sum_after) return Error{Code::kCorrupt, "sum after differs"};
  return {};
}

// Applies the entry of tensor `info`, if the pack has one.
Status apply_pack(const std::string& pack, const TensorInfo& info, const Words& earlier,
                  Words* tensor, Json* sections = nullptr) {
  const Result<PackIndex> index = parse_pack_index(as_bytes(pack), pack.size());
  if (!index) return index.error();
  const WordMatrix matrix = word_matrix(info);
  for (const PackIndexEntry& entry : index->entries) {
    if (entry.tensor != info.name) continue;
    const auto split = split_sections(as_bytes(pack).subspan(entry.offset_bytes, entry.size_bytes));
    if (!split) return split.error();
    for (const ByteSpan bytes : *split) {
      const Result<Section> section = Section::open(bytes, matrix, info.dtype);
      if (!section) return section.error();
      if (Status applied = apply_tile(*section, matrix, earlier, tensor); !applied) return applied;
      if (sections != nullptr) {
        const SectionHeader& header = section->header();
        sections->push_back({{"changed", header.changed},
                             {"codec", std::string(find_codec(header.codec)->name())},
                             {"section_bytes", header.section_bytes}});
      }
    }
  }
  return {};
}

std::vector<std::string> case_names(const std::string& kind) {
  std::vector<std::string> names;
  const Json manifest = load_json(folder(kind) / "manifest.json");
  for (const Json& name : manifest["cases"]) names.push_back(name.get<std::string>());
  return names;
}

void expect_case_reads(const std::string& kind, const std::string& name) {
  SCOPED_TRACE(kind + " " + name);
  const Json golden = load_json(folder(kind) / (name + ".json"));
  std::vector<StateRow> before;
  std::vector<StateRow> after;
  for (const Json& tensor : golden["tensors"]) {
    SCOPED_TRACE(tensor["name"].get<std::string>());
    Words bytes = old_bytes(tensor);
    const Words earlier =
        tensor.contains("earlier") ? unhex(tensor["earlier"].get<std::string>()) : Words();
    const TensorInfo info = tensor_info(tensor);
    before.push_back({info.name, info.dtype, info.shape, digest_bytes(bytes, 0)});
    Json found = Json::array();
    for (const Json& pack : golden["packs"]) {
      const Status applied =
          apply_pack(slurp(folder(kind) / pack.get<std::string>()), info, earlier, &bytes, &found);
      ASSERT_TRUE(applied) << applied.error().message;
    }
    EXPECT_TRUE(bytes == new_bytes(tensor));
    after.push_back({info.name, info.dtype, info.shape, digest_bytes(bytes, 0)});
    ASSERT_EQ(found.size(), tensor["sections"].size());
    for (size_t i = 0; i < found.size(); ++i)
      for (const auto& [key, value] : found[i].items())
        EXPECT_EQ(value, tensor["sections"][i][key]) << key;
  }
  std::ranges::sort(before, {}, &StateRow::name);
  std::ranges::sort(after, {}, &StateRow::name);
  EXPECT_EQ(state_root(before), golden["from"].get<std::string>());
  EXPECT_EQ(state_root(after), golden["to"].get<std::string>());
}

TEST(GoldenPacks, Read) {
  const auto names = case_names("read");
  EXPECT_GE(names.size(), 11u);
  for (const std::string& name : names) expect_case_reads("read", name);
}

TEST(GoldenPacks, Refuse) {
  const Json manifest = load_json(folder("refuse") / "manifest.json");
  EXPECT_GE(manifest["cases"].size(), 50u);
  for (const Json& golden : manifest["cases"]) {
    const auto file = golden["pack"].get<std::string>();
    SCOPED_TRACE(file);
    Words bytes = old_bytes(golden["tensor"]);
    const Words earlier(bytes.size());
    const Status applied =
        apply_pack(slurp(folder("refuse") / file), tensor_info(golden["tensor"]), earlier, &bytes);
    ASSERT_FALSE(applied);
    EXPECT_EQ(code_name(applied.error().code), golden["code"].get<std::string>())
        << applied.error().message;
  }
}

TEST(GoldenPacks, Write) {
  for (const std::string& name : case_names("write")) expect_case_reads("write", name);
  if (load_json(folder("write") / "manifest.json")["zstd"] != ZSTD_versionString())
    GTEST_SKIP() << "another version of zstd may find other frames";
  for (const test::GoldenCase& golden : test::golden_write_cases()) {
    for (const test::GoldenFile& pack : golden.packs)
      EXPECT_TRUE(slurp(folder("write") / pack.name) == pack.content) << pack.name;
    EXPECT_EQ(load_json(folder("write") / (golden.name + ".json")), golden.description);
  }
}

}  // namespace
}  // namespace siltstone
