// The comparison of codecs counts what sections take, and notices a codec that does not give back
// what it was given.
#include "repo/compare_codecs.h"

#include <gtest/gtest.h>

#include <map>

#include "delta/grid.h"
#include "delta/section.h"
#include "support/plain_change.h"
#include "support/tiny_model.h"

namespace siltstone {
namespace {

using test::PlainChange;
using test::TinyModel;

// More than one batch of tiles, beside tensors of a tile or less.
TinyModel model() {
  TinyModel out;
  std::mt19937_64 random(11);
  std::vector<std::byte> bytes(uint64_t{70} << 20);
  for (size_t i = 0; i < bytes.size(); i += 8) store_le(bytes.data() + i, random());
  const auto rows = static_cast<int64_t>(bytes.size() / 2 / 1000);
  bytes.resize(static_cast<size_t>(rows) * 2000);
  out.tensors.push_back({"x.large", DType::kBF16, {rows, 1000}, std::move(bytes)});
  out.tensors.push_back({"y.same", DType::kF32, {100}, std::vector<std::byte>(400)});
  return out;
}

TinyModel stepped(TinyModel from) {
  std::mt19937_64 random(5);
  for (TinyModel::Tensor& tensor : from.tensors) {
    if (tensor.name == "y.same") continue;
    for (size_t i = 0; i < tensor.bytes.size() / 500 + 1; ++i)
      tensor.bytes[random() % tensor.bytes.size()] ^= std::byte{1};
  }
  return from;
}

// Bytes of the sections of all default tiles. Words were `earlier` one version before `from`.
uint64_t section_bytes(const TinyModel& earlier, const TinyModel& from, const TinyModel& to,
                       const Coding& coding) {
  uint64_t total = 0;
  for (size_t t = 0; t < from.tensors.size(); ++t) {
    const TinyModel::Tensor& tensor = to.tensors[t];
    const TensorInfo info{tensor.name, tensor.dtype, tensor.shape, tensor.bytes.size()};
    const WordMatrix matrix = word_matrix(info);
    for (const Tile& tile : default_tiles(matrix)) {
      const uint64_t begin = tile.row_begin * matrix.cols * matrix.word_bytes;
      const uint64_t length = tile.elements() * matrix.word_bytes;
      const auto words = [&](const std::vector<std::byte>& bytes) {
        const ByteSpan part = ByteSpan(bytes).subspan(begin, length);
        return std::vector<std::byte>(part.begin(), part.end());
      };
      const PlainChange change(info.dtype, kDefaultLog2Block, words(from.tensors[t].bytes),
                               words(tensor.bytes));
      if (change.positions.empty()) continue;
      std::vector<std::byte> section;
      TileChange view = change.view();
      view.effort = coding.effort;
      view.earlier_words = ByteSpan(earlier.tensors[t].bytes).subspan(begin, length);
      EXPECT_TRUE(append_section(view, tile, {}, {}, coding.codec, &section));
      total += section.size();
    }
  }
  return total;
}

// Answers as another codec does, but for what a test overrides.
class Disguised : public Codec {
 public:
  uint16_t id() const override { return find_codec("raw")->id(); }
  std::string_view name() const override { return "disguised"; }
  Need need() const override { return find_codec("raw")->need(); }
  uint64_t estimate_bytes(const TileChange& change) const override {
    return find_codec("raw")->estimate_bytes(change);
  }
  Result<EncodedTile> encode(const TileChange& change) const override {
    return find_codec("raw")->encode(change);
  }
  Result<std::unique_ptr<BlockDecoder>> decoder(const TileCode& code) const override {
    return find_codec("raw")->decoder(code);
  }
};

TEST(CompareCodecs, SizesAreThoseOfTheSections) {
  const TinyModel before = model();
  const TinyModel from = stepped(before);
  const TinyModel to = stepped(from);
  const std::unique_ptr<Checkpoint> first = before.checkpoint();
  uint64_t reported = 0;
  CompareCodecsOptions options;
  options.earlier = first.get();
  options.rounds = 2;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, reported);
    EXPECT_LE(done, total);
    reported = done;
    return true;
  };
  const auto report = compare_codecs(*from.checkpoint(), *to.checkpoint(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->tensors, from.tensors.size());
  EXPECT_TRUE(report->left_out.empty());
  EXPECT_EQ(reported, report->dense_bytes);
  const auto plain = diff_checkpoints(*from.checkpoint(), *to.checkpoint(), {});
  ASSERT_TRUE(plain);
  EXPECT_EQ(report->changed_elements, plain->changed_elements);
  EXPECT_EQ(report->elements, plain->total_elements);
  ASSERT_EQ(report->results.size(), all_codecs().size() + kEfforts.size());
  for (const CodecResult& result : report->results) {
    SCOPED_TRACE(result.name);
    Coding coding{result.name, find_codec(result.name)};
    for (const Effort effort : kEfforts)
      if (effort_name(effort) == result.name) coding.effort = effort;
    EXPECT_EQ(result.section_bytes, section_bytes(before, from, to, coding));
    EXPECT_GT(result.encode_seconds, 0);
    EXPECT_GT(result.decode_seconds, 0);
    EXPECT_EQ(result.refused_tensors, 0U);
    uint64_t sections = 0;
    for (const auto& [name, count] : result.sections_by_codec) {
      EXPECT_TRUE(coding.codec == nullptr || name == result.name);
      sections += count;
    }
    EXPECT_EQ(sections, result.sections);
  }
}

TEST(CompareCodecs, LeavesOutWhatNeedsTheVersionBefore) {
  CompareCodecsOptions options;
  options.rounds = 1;
  const TinyModel from;
  const auto all = compare_codecs(*from.checkpoint(), *stepped(from).checkpoint(), options);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->results.size(), all_codecs().size() + kEfforts.size() - 1);
  options.codecs = {"momentum"};
  const auto report = compare_codecs(*from.checkpoint(), *stepped(from).checkpoint(), options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::kInvalidArgument);
  EXPECT_NE(report.error().message.find("before"), std::string::npos) << report.error().message;
}

TEST(CompareCodecs, TakesTheTensorsAndCodecsItIsTold) {
  const TinyModel from = model();
  TinyModel to = stepped(from);
  to.tensors.erase(to.tensors.begin());
  to.tensors.back().shape = {10, 10};
  CompareCodecsOptions options;
  options.codecs = {"step", "max", "raw"};
  options.tensors = "[!x]*";
  const auto report = compare_codecs(*from.checkpoint(), *to.checkpoint(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->left_out, (std::vector<std::string>{"bias", "y.same"}));
  EXPECT_EQ(report->tensors, 3U);
  ASSERT_EQ(report->results.size(), 3U);
  EXPECT_EQ(report->results[0].name, "step");
  EXPECT_EQ(report->results[1].name, "max");
  EXPECT_EQ(report->results[2].name, "raw");
}

TEST(CompareCodecs, EqualCheckpointsTakeNoSections) {
  const TinyModel from;
  const auto report = compare_codecs(*from.checkpoint(), *from.checkpoint(), {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->changed_elements, 0U);
  for (const CodecResult& result : report->results) EXPECT_EQ(result.section_bytes, 0U);
}

TEST(CompareCodecs, RefusesWhatItCannotDo) {
  const TinyModel from;
  const TinyModel to = stepped(from);
  const auto code = [&](const TinyModel& next, const CompareCodecsOptions& options) {
    const auto report = compare_codecs(*from.checkpoint(), *next.checkpoint(), options);
    return report ? std::optional<Code>() : report.error().code;
  };
  CompareCodecsOptions options;
  options.codecs = {"nonesuch"};
  EXPECT_EQ(code(to, options), Code::kInvalidArgument);
  options = {};
  options.tensors = "nonesuch*";
  EXPECT_EQ(code(to, options), Code::kInvalidArgument);
  options = {};
  options.rounds = 0;
  EXPECT_EQ(code(to, options), Code::kInvalidArgument);
  TinyModel other = to;
  for (TinyModel::Tensor& tensor : other.tensors) tensor.name += ".other";
  EXPECT_EQ(code(other, {}), Code::kInvalidArgument);
}

TEST(CompareCodecs, CodesWhatACodecRefusesAsAutomaticDoes) {
  class Picky final : public Disguised {
   public:
    Result<EncodedTile> encode(const TileChange& change) const override {
      if (change.dtype != DType::kBF16) return Error{Code::kUnsupported, "bf16 only"};
      return Disguised::encode(change);
    }
  };
  const TinyModel from;
  const TinyModel to = stepped(from);
  const Picky picky;
  const auto compare = [&](const Coding& coding, std::string tensors) {
    CompareCodecsOptions options;
    options.tensors = std::move(tensors);
    return (*compare_codecs(*from.checkpoint(), *to.checkpoint(), {coding}, options)).results[0];
  };
  const CodecResult mixed = compare({"picky", &picky}, "");
  EXPECT_EQ(mixed.refused_tensors, 3U);
  EXPECT_EQ(mixed.sections, 4U);
  EXPECT_EQ(mixed.section_bytes, compare({"raw", find_codec("raw")}, "weight").section_bytes +
                                     compare({"default"}, "[!w]*").section_bytes);
}

TEST(CompareCodecs, NoticesWhatIsNotExact) {
  class Forgetful final : public Disguised {
   public:
    Result<EncodedTile> encode(const TileChange& change) const override {
      std::vector<std::byte> words(change.changed_words.begin(), change.changed_words.end());
      words.front() ^= std::byte{2};
      TileChange other = change;
      other.changed_words = words;
      return Disguised::encode(other);
    }
  };
  const TinyModel from;
  const TinyModel to = stepped(from);
  const Forgetful forgetful;
  const auto report =
      compare_codecs(*from.checkpoint(), *to.checkpoint(), {{"disguised", &forgetful}}, {});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Code::kInternal);
  EXPECT_NE(report.error().message.find("disguised"), std::string::npos);
}

}  // namespace
}  // namespace siltstone
