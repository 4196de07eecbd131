#include "golden/pack_cases.h"

#include <algorithm>
#include <cstdlib>

#include "delta/digest.h"
#include "delta/pack.h"
#include "delta/section.h"
#include "support/hostile_sections.h"
#include "support/plain_change.h"
#include "support/random_state.h"

namespace siltstone::test {
namespace {

using Words = std::vector<std::byte>;

struct GoldenTile {
  Tile tile;
  std::string codec;  // empty: the library's choice
  unsigned log2_block = 16;
  size_t pack = 0;  // which of the case's packs holds it
};

struct GoldenTensor {
  TensorInfo info;
  Words old_bytes;
  Words new_bytes;
  Words earlier_bytes;  // empty: no section needs them
  std::vector<GoldenTile> tiles;
  bool describe_short = false;  // old bytes repeat 8 bytes; new ones are described as patches

  WordMatrix matrix() const { return word_matrix(info); }
  Tile whole() const { return {0, matrix().rows, 0, matrix().cols}; }
};

[[noreturn]] void fail(const Error& error) {
  std::fprintf(stderr, "pack_cases: %s\n", error.message.c_str());
  std::abort();
}

GoldenTensor make_tensor(std::string name, DType dtype, std::vector<int64_t> shape) {
  GoldenTensor tensor;
  const uint64_t size_bytes = tensor_size_bytes(dtype, shape).value();
  tensor.info = {std::move(name), dtype, std::move(shape), size_bytes};
  tensor.old_bytes.resize(size_bytes);
  return tensor;
}

// Words of the given pattern, changed at `where`.
GoldenTensor random_tensor(std::string name, DType dtype, std::vector<int64_t> shape, Where where,
                           Pattern pattern, uint64_t seed, bool with_past = false) {
  GoldenTensor tensor = make_tensor(std::move(name), dtype, std::move(shape));
  const uint64_t words = tensor.info.size_bytes / dtype_info(dtype).word_bytes;
  PlainChange change = make_change(dtype, words, 16, where, pattern, seed);
  tensor.old_bytes = std::move(change.old_words);
  tensor.new_bytes = std::move(change.new_words);
  if (with_past) tensor.earlier_bytes = std::move(change.earlier_words);
  return tensor;
}

Words gather(const GoldenTensor& tensor, const Tile& tile, const Words& bytes) {
  Words words;
  for (const ByteRange& range : tile_ranges(tensor.matrix(), tile, 0, tile.elements()))
    for (uint64_t i = 0; i < range.length; ++i) words.push_back(bytes[range.offset + i]);
  return words;
}

Sum128 tile_sum(const GoldenTensor& tensor, const Tile& tile, const Words& bytes) {
  Sum128 sum;
  for (const ByteRange& range : tile_ranges(tensor.matrix(), tile, 0, tile.elements()))
    sum += digest_bytes(ByteSpan(bytes).subspan(range.offset, range.length), range.offset);
  return sum;
}

Bytes encode_tile(const GoldenTensor& tensor, const GoldenTile& golden) {
  const PlainChange change(tensor.info.dtype, golden.log2_block,
                           gather(tensor, golden.tile, tensor.old_bytes),
                           gather(tensor, golden.tile, tensor.new_bytes));
  const Words earlier =
      tensor.earlier_bytes.empty() ? Words() : gather(tensor, golden.tile, tensor.earlier_bytes);
  TileChange view = change.view();
  view.earlier_words = earlier;
  Bytes section;
  const Status status =
      append_section(view, golden.tile, tile_sum(tensor, golden.tile, tensor.old_bytes),
                     tile_sum(tensor, golden.tile, tensor.new_bytes),
                     golden.codec.empty() ? nullptr : find_codec(golden.codec), &section);
  if (!status) fail(status.error());
  return section;
}

Json describe_section(const Bytes& section, const std::string& pack) {
  const Result<SectionHeader> header = parse_section_header(section);
  if (!header) fail(header.error());
  const Codec* codec = find_codec(header->codec);
  return {{"pack", pack},
          {"row_begin", header->tile.row_begin},
          {"rows", header->tile.rows},
          {"col_begin", header->tile.col_begin},
          {"cols", header->tile.cols},
          {"codec", std::string(codec->name())},
          {"need", static_cast<int>(codec->need())},
          {"log2_block", header->log2_block},
          {"changed", header->changed},
          {"section_bytes", header->section_bytes},
          {"sum_before", to_hex(header->sum_before)},
          {"sum_after", to_hex(header->sum_after)}};
}

Json describe_bytes(const GoldenTensor& tensor) {
  Json json = {{"name", tensor.info.name},
               {"dtype", std::string(dtype_info(tensor.info.dtype).name)},
               {"shape", tensor.info.shape}};
  if (!tensor.describe_short) {
    json["old"] = to_hex(ByteSpan(tensor.old_bytes));
    json["new"] = to_hex(ByteSpan(tensor.new_bytes));
    if (!tensor.earlier_bytes.empty()) json["earlier"] = to_hex(ByteSpan(tensor.earlier_bytes));
    return json;
  }
  json["old"] = {{"repeat", to_hex(ByteSpan(tensor.old_bytes).first(8))},
                 {"bytes", tensor.old_bytes.size()}};
  Json patches = Json::array();
  for (size_t i = 0; i < tensor.old_bytes.size(); ++i)
    if (tensor.old_bytes[i] != tensor.new_bytes[i])
      patches.push_back({i, to_hex(ByteSpan(tensor.new_bytes).subspan(i, 1))});
  json["new"] = {{"patches", std::move(patches)}};
  return json;
}

std::string root_of(const std::vector<GoldenTensor>& tensors, Words GoldenTensor::*bytes) {
  std::vector<StateRow> rows;
  for (const GoldenTensor& tensor : tensors)
    rows.push_back(
        {tensor.info.name, tensor.info.dtype, tensor.info.shape, digest_bytes(tensor.*bytes, 0)});
  std::ranges::sort(rows, {}, &StateRow::name);
  return state_root(rows);
}

std::string pack_bytes(const std::vector<PackEntry>& entries, const std::string& from,
                       const std::string& to, bool tables = false) {
  std::vector<std::pair<std::string, std::string>> metadata = {{"siltstone.format", "1"},
                                                               {"siltstone.from", from},
                                                               {"siltstone.kind", "delta"},
                                                               {"siltstone.to", to}};
  if (tables) {
    const auto found = *pack_tables(entries, /*chunks=*/true);
    metadata.insert(metadata.end(), found.begin(), found.end());
  }
  std::string pack = pack_prefix(entries, metadata);
  for (const PackEntry& entry : entries) pack += as_text(entry.sections);
  return pack;
}

GoldenCase make_case(std::string name, std::vector<GoldenTensor> tensors, size_t packs = 1,
                     bool tables = false) {
  GoldenCase golden{std::move(name), {}, {}};
  const std::string from = root_of(tensors, &GoldenTensor::old_bytes);
  const std::string to = root_of(tensors, &GoldenTensor::new_bytes);
  std::vector<std::string> names;
  for (size_t i = 0; i < packs; ++i)
    names.push_back(golden.name + (packs == 1 ? "" : "_" + std::to_string(i)) + ".pack");
  std::vector<std::vector<PackEntry>> entries(packs);
  golden.description = {{"from", from}, {"to", to}, {"packs", names}, {"tensors", Json::array()}};
  for (const GoldenTensor& tensor : tensors) {
    Json json = describe_bytes(tensor);
    json["sections"] = Json::array();
    for (size_t i = 0; i < packs; ++i) {
      PackEntry entry{tensor.info.name, {}};
      for (const GoldenTile& tile : tensor.tiles) {
        if (tile.pack != i) continue;
        const Bytes section = encode_tile(tensor, tile);
        json["sections"].push_back(describe_section(section, names[i]));
        entry.sections.insert(entry.sections.end(), section.begin(), section.end());
      }
      if (!entry.sections.empty()) entries[i].push_back(std::move(entry));
    }
    golden.description["tensors"].push_back(std::move(json));
  }
  for (size_t i = 0; i < packs; ++i)
    golden.packs.push_back({names[i], pack_bytes(entries[i], from, to, tables)});
  return golden;
}

// ten BF16 words of which four change: small enough for the document to show in full.
GoldenCase example_case() {
  GoldenTensor tensor = make_tensor("w", DType::kBF16, {2, 5});
  tensor.old_bytes.clear();
  tensor.new_bytes.clear();
  const uint16_t old_words[] = {0x3F80, 0x3F81, 0x0000, 0xBE00, 0x3C10,
                                0x8001, 0x7F80, 0x4000, 0x4000, 0x3E99};
  const uint16_t new_words[] = {0x3F80, 0x3F82, 0x0000, 0xBE01, 0x3C10,
                                0x0002, 0x7F80, 0x4000, 0x4000, 0x3E95};
  for (const uint16_t word : old_words) append_le(word, &tensor.old_bytes);
  for (const uint16_t word : new_words) append_le(word, &tensor.new_bytes);
  tensor.tiles = {{tensor.whole(), "step"}};
  return make_case("example", {tensor});
}

// 52 words of one exponent, often changed, and 12 of a larger one.
GoldenTensor class_example_tensor() {
  GoldenTensor tensor = make_tensor("w", DType::kBF16, {8, 8});
  tensor.old_bytes.clear();
  for (uint16_t i = 0; i < 64; ++i)
    append_le(static_cast<uint16_t>((i < 52 ? 0x3800 : 0x3C00) + i), &tensor.old_bytes);
  tensor.new_bytes = tensor.old_bytes;
  const std::pair<size_t, int> steps[] = {{3, 1},  {17, 1}, {30, 1}, {41, -1},
                                          {44, 2}, {50, 6}, {55, 1}, {60, -1}};
  for (const auto& [element, step] : steps) {
    std::byte* word = tensor.new_bytes.data() + 2 * element;
    store_le(word, static_cast<uint16_t>(load_le<uint16_t>(word) + step));
  }
  tensor.tiles = {{tensor.whole(), "class"}};
  return tensor;
}

// The same change, by words of which some had moved before.
GoldenTensor momentum_example_tensor() {
  GoldenTensor tensor = class_example_tensor();
  tensor.earlier_bytes = tensor.old_bytes;
  const std::pair<size_t, int> steps[] = {{3, 1}, {8, -1}, {41, -1}, {44, 2}, {50, 8}, {60, 1}};
  for (const auto& [element, step] : steps) {
    std::byte* word = tensor.earlier_bytes.data() + 2 * element;
    store_le(word, static_cast<uint16_t>(load_le<uint16_t>(word) - step));
  }
  tensor.tiles = {{tensor.whole(), "momentum"}};
  return tensor;
}

GoldenCase one_codec_all_dtypes(const std::string& codec, uint64_t words, Pattern pattern,
                                uint64_t seed) {
  std::vector<GoldenTensor> tensors;
  for (const DTypeInfo& info : all_dtypes()) {
    const auto elements = static_cast<int64_t>(words * info.word_bytes * 8 / info.bits);
    GoldenTensor tensor =
        random_tensor("t." + std::string(info.name), info.dtype, {elements},
                      {Where::kRate, 400'000}, pattern, seed++, codec == "momentum");
    tensor.tiles = {{tensor.whole(), codec}};
    tensors.push_back(std::move(tensor));
  }
  return make_case(codec + "_dtypes", std::move(tensors));
}

// Enough changes for entropy coding to win, in steps that follow a law like that of training.
GoldenTensor trained_tensor(std::string name, std::vector<int64_t> shape, uint64_t seed) {
  GoldenTensor tensor = make_tensor(std::move(name), DType::kBF16, std::move(shape));
  Random random(seed);
  tensor.new_bytes.resize(tensor.old_bytes.size());
  for (size_t at = 0; at < tensor.old_bytes.size(); at += 2) {
    const auto old_word =
        static_cast<uint16_t>(0x3C00 + random.below(0x200) + (random.below(2) << 15));
    uint64_t distance = random.below(4) == 0 ? 1 : 0;
    while (distance != 0 && random.below(3) == 0) distance *= 2;
    const auto new_word =
        static_cast<uint16_t>(random.below(2) ? old_word + distance : old_word - distance);
    store_le(tensor.old_bytes.data() + at, old_word);
    store_le(tensor.new_bytes.data() + at, new_word);
  }
  return tensor;
}

// Most words had moved the same way once before, some by nothing or against it.
GoldenTensor with_momentum(GoldenTensor tensor) {
  Random random(63);
  tensor.earlier_bytes = tensor.old_bytes;
  for (size_t at = 0; at < tensor.old_bytes.size(); at += 2) {
    const auto from = load_le<uint16_t>(tensor.old_bytes.data() + at);
    const int step = load_le<uint16_t>(tensor.new_bytes.data() + at) - from;
    const int last = random.below(8) == 0 ? static_cast<int>(random.below(3)) - 1 : step;
    store_le(tensor.earlier_bytes.data() + at, static_cast<uint16_t>(from - last));
  }
  return tensor;
}

// Planes that zstd shortens and planes that it does not.
GoldenTensor planes_tensor(std::string name, DType dtype, std::vector<int64_t> shape) {
  GoldenTensor tensor = random_tensor(std::move(name), dtype, std::move(shape),
                                      {Where::kRate, 1'000'000}, Pattern::kRandom, 71);
  const size_t word_bytes = dtype_info(dtype).word_bytes;
  for (size_t i = 0; i < tensor.new_bytes.size(); ++i)
    if (i % word_bytes == word_bytes - 1) tensor.new_bytes[i] = std::byte{0x3C};
  return tensor;
}

// Two blocks and the start of a third, of which the second does not change.
GoldenTensor blocks_tensor(std::string name, DType dtype) {
  const uint64_t word_bytes = dtype_info(dtype).word_bytes;
  constexpr uint64_t kBlock = 65536;
  GoldenTensor tensor =
      make_tensor(std::move(name), dtype, {static_cast<int64_t>(2 * kBlock + 100)});
  for (size_t i = 0; i < tensor.old_bytes.size(); ++i)
    tensor.old_bytes[i] = static_cast<std::byte>(0x10 * (i % 8 / word_bytes) + 1);
  tensor.new_bytes = tensor.old_bytes;
  for (const uint64_t element :
       {uint64_t{0}, uint64_t{5}, uint64_t{40'000}, kBlock - 1, 2 * kBlock, 2 * kBlock + 99})
    tensor.new_bytes[element * word_bytes] = static_cast<std::byte>(element % 7 + 2);
  tensor.describe_short = true;
  return tensor;
}

std::vector<GoldenTile> row_tiles(const GoldenTensor& tensor, uint64_t rows,
                                  const std::string& codec) {
  std::vector<GoldenTile> tiles;
  for (uint64_t row = 0; row < tensor.matrix().rows; row += rows)
    tiles.push_back(
        {{row, std::min(rows, tensor.matrix().rows - row), 0, tensor.matrix().cols}, codec});
  return tiles;
}

GoldenTensor with_tiles(GoldenTensor tensor, std::vector<GoldenTile> tiles) {
  tensor.tiles = std::move(tiles);
  return tensor;
}
GoldenTensor with_codec(GoldenTensor tensor, const std::string& codec, unsigned log2_block = 16) {
  tensor.tiles = {{tensor.whole(), codec, log2_block}};
  return tensor;
}

GoldenCase tiles_case() {
  const auto tensor = [](const char* name, uint64_t seed) {
    return random_tensor(name, DType::kBF16, {2, 4, 16}, {Where::kRate, 300'000},
                         Pattern::kNeighbours, seed);
  };
  const GoldenTensor rows = tensor("rows", 30);
  // Outside columns 4 to 12 nothing may differ.
  GoldenTensor columns = tensor("columns", 31);
  for (size_t i = 0; i < columns.new_bytes.size(); ++i)
    if (i % 32 < 8 || i % 32 >= 24) columns.new_bytes[i] = columns.old_bytes[i];
  const GoldenTensor mixed = tensor("mixed", 32);
  return make_case(
      "tiles",
      {with_tiles(rows, row_tiles(rows, 3, "step")), with_tiles(columns, {{{0, 8, 4, 8}, "raw"}}),
       with_tiles(mixed,
                  {{{0, 8, 8, 8}, "dense"}, {{0, 2, 0, 8}, "step"}, {{2, 6, 0, 8}, "raw"}})});
}

GoldenCase spread_case() {
  const GoldenTensor tensor = random_tensor("experts", DType::kF32, {4, 2, 8},
                                            {Where::kRate, 300'000}, Pattern::kNeighbours, 40);
  std::vector<GoldenTile> tiles = row_tiles(tensor, 2, "step");
  tiles[1].pack = 1;
  tiles[2].pack = 1;
  GoldenTensor only_second =
      random_tensor("norm", DType::kBF16, {16}, {Where::kFirst, 0}, Pattern::kNeighbours, 41);
  only_second.tiles = {{only_second.whole(), "raw", 16, 1}};
  return make_case("spread", {with_tiles(tensor, tiles), only_second}, 2);
}

GoldenCase shapes_case() {
  const Where all{Where::kRate, 1'000'000};
  GoldenTensor scalar = random_tensor("scalar", DType::kF32, {}, all, Pattern::kNeighbours, 50);
  GoldenTensor vector = random_tensor("vector", DType::kI64, {3}, all, Pattern::kExtremes, 51);
  GoldenTensor odd = random_tensor("odd \xC3\xA9", DType::kU8, {13}, all, Pattern::kRandom, 52);
  GoldenTensor same = make_tensor("same", DType::kF16, {4, 4});
  same.new_bytes = same.old_bytes;
  GoldenTensor empty = make_tensor("empty", DType::kF16, {0, 4});
  return make_case("shapes", {with_codec(scalar, "step"), with_codec(vector, "step"),
                              with_codec(odd, "raw", 24), same, empty});
}

GoldenCase nothing_case() {
  GoldenTensor same = make_tensor("same", DType::kBF16, {4});
  same.new_bytes = same.old_bytes;
  return make_case("nothing", {same});
}

// A refused pack around one section.
GoldenCase refused_section(const HostileSection& hostile) {
  const PackEntry entry{"t", hostile.bytes};
  const std::string root(64, '0');
  GoldenCase golden{hostile.name, {{hostile.name + ".pack", pack_bytes({entry}, root, root)}}, {}};
  golden.description = {{"pack", hostile.name + ".pack"},
                        {"code", std::string(code_name(hostile.code))},
                        {"tensor",
                         {{"name", "t"},
                          {"dtype", std::string(dtype_info(hostile.dtype).name)},
                          {"shape", {hostile.matrix.rows}},
                          {"old",
                           {{"repeat", "0000000000000000"},
                            {"bytes", hostile.matrix.words() * hostile.matrix.word_bytes}}}}}};
  return golden;
}

HostileSection overlapping_tiles() {
  SectionBytes section;
  Bytes payload;
  append_le(uint32_t{1}, &payload);
  append_le(uint32_t{0}, &payload);
  append_le(uint16_t{1}, &payload);
  section.blocks = {payload};
  HostileSection hostile{"tiles_overlap", Code::kCorrupt, section.build()};
  hostile.bytes.insert(hostile.bytes.end(), hostile.bytes.begin(), hostile.bytes.end());
  return hostile;
}

}  // namespace

std::vector<GoldenCase> golden_read_cases() {
  const GoldenTensor trained = trained_tensor("trained", {32, 64}, 60);
  std::vector<GoldenCase> cases;
  cases.push_back(example_case());
  cases.push_back(one_codec_all_dtypes("raw", 24, Pattern::kSpecials, 100));
  cases.push_back(one_codec_all_dtypes("step", 24, Pattern::kSpecials, 200));
  cases.push_back(one_codec_all_dtypes("dense", 24, Pattern::kRandom, 300));
  cases.push_back(one_codec_all_dtypes("class", 24, Pattern::kSpecials, 400));
  cases.push_back(one_codec_all_dtypes("dense_delta", 24, Pattern::kSpecials, 500));
  cases.push_back(make_case("class_example", {class_example_tensor()}));
  cases.push_back(make_case("momentum_example", {momentum_example_tensor()}));
  cases.push_back(one_codec_all_dtypes("momentum", 24, Pattern::kSpecials, 600));
  cases.push_back(make_case("momentum_trained", {with_codec(with_momentum(trained), "momentum")}));
  cases.push_back(make_case("class_trained", {with_codec(trained, "class")}));
  cases.push_back(make_case("step_frames", {with_codec(trained, "step")}));
  cases.push_back(
      make_case("dense_frames", {with_codec(planes_tensor("p16", DType::kBF16, {200}), "dense"),
                                 with_codec(planes_tensor("p64", DType::kF64, {50}), "dense", 20),
                                 with_codec(trained, "dense_delta")}));
  cases.push_back(make_case("blocks", {with_codec(blocks_tensor("raw", DType::kU8), "raw"),
                                       with_codec(blocks_tensor("step", DType::kBF16), "step"),
                                       with_codec(blocks_tensor("dense", DType::kU8), "dense"),
                                       with_codec(blocks_tensor("two", DType::kI8), "step", 17),
                                       with_codec(blocks_tensor("class", DType::kBF16), "class")}));
  cases.push_back(tiles_case());
  cases.push_back(spread_case());
  cases.push_back(shapes_case());
  cases.push_back(nothing_case());
  cases.push_back(make_case("tables",
                            {with_codec(trained, "class"), class_example_tensor(),
                             with_codec(planes_tensor("p16", DType::kBF16, {200}), "dense")},
                            1, /*tables=*/true));
  return cases;
}

std::vector<GoldenCase> golden_write_cases() {
  const GoldenTensor trained = trained_tensor("trained", {40, 64}, 61);
  return {make_case(
      "chosen",
      {with_codec(trained, "", 20), with_codec(planes_tensor("planes", DType::kF32, {64}), "", 20),
       with_codec(
           random_tensor("sparse", DType::kF32, {50}, {Where::kLast, 0}, Pattern::kNeighbours, 62),
           "", 20)})};
}

std::vector<GoldenCase> golden_refuse_cases() {
  std::vector<GoldenCase> cases;
  for (const HostileSection& hostile : hostile_sections()) {
    // An entry must have a length that packs allow; those wrong in that way are no use here.
    if (!hostile.bytes.empty() && hostile.bytes.size() % kSectionAlignment == 0)
      cases.push_back(refused_section(hostile));
  }
  cases.push_back(refused_section(overlapping_tiles()));
  return cases;
}

}  // namespace siltstone::test
