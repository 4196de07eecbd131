#include "support/hostile_sections.h"

#include <zstd.h>

#include <initializer_list>
#include <numeric>

#include "support/hostile_classes.h"

namespace siltstone::test {
namespace {

constexpr uint64_t kRows = 100;  // of the tensor all cases pretend to change

Bytes bytes_of(std::initializer_list<unsigned> values) {
  Bytes out;
  for (const unsigned value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

// Byte by byte and not inlined: GCC 12 sees overflows in the bulk insert of known lengths.
[[gnu::noinline]] Bytes operator+(Bytes left, const Bytes& right) {
  for (const std::byte byte : right) left.push_back(byte);
  return left;
}

template <class T>
Bytes le(T value) {
  Bytes out;
  append_le(value, &out);
  return out;
}

Bytes raw_payload(const std::vector<uint32_t>& positions) {
  Bytes out = le(static_cast<uint32_t>(positions.size()));
  for (const uint32_t position : positions) append_le(position, &out);
  for (size_t i = 0; i < positions.size(); ++i) append_le(uint16_t{0x3F80}, &out);
  return out;
}

Bytes step_payload(uint32_t changed, const Bytes& tokens, const Bytes& sizes, const Bytes& bits) {
  return le(changed) + le(static_cast<uint32_t>(tokens.size())) +
         le(static_cast<uint32_t>(sizes.size())) + tokens + sizes + bits;
}

SectionBytes raw_section(const Bytes& payload, uint64_t changed = 1) {
  SectionBytes section;
  section.changed = changed;
  section.blocks = {payload};
  return section;
}
SectionBytes step_section(const Bytes& payload, uint64_t changed = 1) {
  SectionBytes section = raw_section(payload, changed);
  section.codec = 2;
  section.need = 1;
  return section;
}
SectionBytes dense_section(const Bytes& payload) {
  SectionBytes section = raw_section(payload);
  section.codec = 3;
  return section;
}

// zstd frames that streams must not be. `content` bytes of zero, with the given parameters.
Bytes zstd_frame(size_t content,
                 std::initializer_list<std::pair<ZSTD_cParameter, int>> parameters) {
  const Bytes zeros(content);
  Bytes out(ZSTD_compressBound(content));
  ZSTD_CCtx* context = ZSTD_createCCtx();
  for (const auto& [parameter, value] : parameters)
    ZSTD_CCtx_setParameter(context, parameter, value);
  const size_t size = ZSTD_compress2(context, out.data(), out.size(), zeros.data(), zeros.size());
  ZSTD_freeCCtx(context);
  out.resize(size);
  return out;
}

// A frame of one RLE block of `content` zero bytes, whose header states `stated` bytes.
Bytes rle_frame(uint64_t stated, uint32_t content) {
  return bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0xE0}) + le(stated) +
         bytes_of(
             {(1 | 1 << 1 | content << 3) & 0xFF, content >> 5 & 0xFF, content >> 13 & 0xFF, 0});
}

class Cases {
 public:
  void add(const char* name, const SectionBytes& section, Code code = Code::kCorrupt) {
    add(name, section.build(), code);
  }
  void add(const char* name, Bytes bytes, Code code = Code::kCorrupt) {
    cases_.push_back({name, code, std::move(bytes)});
  }
  // A good section with one field overwritten.
  template <class T>
  void poked(const char* name, size_t at, T value, Code code = Code::kCorrupt) {
    Bytes bytes = good();
    poke(at, value, &bytes);
    seal(&bytes);
    add(name, std::move(bytes), code);
  }
  // A step section of 60 changes whose tokens are this frame.
  void token_frame(const char* name, const Bytes& frame) {
    add(name, step_section(step_payload(60, frame, {}, {}), 60));
  }
  static Bytes good() { return raw_section(raw_payload({7})).build(); }
  std::vector<HostileSection> take() { return std::move(cases_); }

 private:
  std::vector<HostileSection> cases_;
};

void add_header_cases(Cases* cases) {
  cases->add("no_bytes", Bytes());
  Bytes half = Cases::good();
  half.resize(36);
  cases->add("header_cut", half);
  half = Cases::good();
  half.resize(44);
  seal(&half);
  cases->add("numbers_cut", half);
  cases->poked("version_0", kVersionAt, uint8_t{0});
  cases->poked("version_2", kVersionAt, uint8_t{2}, Code::kUnsupported);
  cases->poked("block_exponent_12", kBlockAndNeedAt, uint8_t{12});
  cases->poked("block_exponent_25", kBlockAndNeedAt, uint8_t{25});
  cases->poked("codec_0", kCodecAt, uint8_t{0});
  cases->poked("codec_unknown", kCodecAt, uint8_t{255}, Code::kUnsupported);
  cases->poked("dtype_0", kDTypeAt, uint8_t{0}, Code::kUnsupported);
  cases->poked("dtype_23", kDTypeAt, uint8_t{23}, Code::kUnsupported);
  cases->poked("dtype_of_another_tensor", kDTypeAt, static_cast<uint8_t>(DType::kF16));
  cases->poked("need_disagrees_with_codec", kBlockAndNeedAt, uint8_t{2 << 6 | 16});
  const auto claims = [cases](const char* name, auto change) {
    SectionBytes section = raw_section(raw_payload({7}));
    change(&section);
    cases->add(name, section);
  };
  using S = SectionBytes;
  claims("params_longer_than_section", [](S* s) { s->params_bytes = 0xFFFFFFF0; });
  claims("params_of_2_to_40", [](S* s) { s->params_bytes = uint64_t{1} << 40; });
  claims("length_beyond_the_entry", [](S* s) { s->length = number(uint64_t{1} << 40); });
  claims("length_of_2_to_62_units", [](S* s) { s->length = number(uint64_t{1} << 62); });
  claims("length_of_header_only", [](S* s) { s->length = number(12); });
  claims("length_0", [](S* s) { s->length = number(0); });
  claims("length_in_too_many_bytes", [](S* s) { s->length = bytes_of({0x8F, 0}); });
  claims("length_in_ten_bytes", [](S* s) {
    s->length = Bytes(9, std::byte{0xFF});
    s->length->push_back(std::byte{1});
  });
  claims("no_rows", [](S* s) { s->rows = 0; });
  claims("no_columns", [](S* s) { s->cols = 0; });
  claims("rows_of_2_to_63", [](S* s) { s->row_begin = uint64_t{1} << 63; });
  claims("elements_wrap", [](S* s) { s->cols = uint64_t{1} << 62; });
  claims("more_bytes_than_any_tensor", [](S* s) { s->rows = uint64_t{1} << 62; });
  claims("more_blocks_than_section", [](S* s) { s->rows = uint64_t{1} << 40; });
  claims("rows_outside_tensor", [](S* s) { s->row_begin = 1; });
  claims("columns_outside_tensor", [](S* s) { s->col_begin = 1; });
  claims("no_changes", [](S* s) { s->changed = 0; });
  claims("more_changes_than_elements", [](S* s) { s->changed = kRows + 1; });
  Bytes unsealed = Cases::good();
  unsealed[0] ^= std::byte{1};
  cases->add("wrong_checksum", unsealed);
}

void add_layout_cases(Cases* cases) {
  const auto units = [cases](const char* name, uint64_t block_units) {
    SectionBytes section = raw_section(raw_payload({7}));
    section.block_units = {{block_units}};
    cases->add(name, section);
  };
  units("block_ends_beyond_section", 4);
  units("block_ends_far_beyond_section", uint64_t{1} << 40);
  units("block_lengths_wrap", uint64_t{1} << 62);
  units("bytes_behind_last_block", 2);
  units("no_block_has_bytes", 0);

  // A hundred changes: 40 bytes and 8 numbers, two of them of two bytes, end 2 bytes before a unit.
  std::vector<uint32_t> positions(100);
  std::iota(positions.begin(), positions.end(), 0);
  SectionBytes padded = raw_section(raw_payload(positions));
  padded.changed = positions.size();
  Bytes padding = padded.build();
  padding[kFixedHeaderBytes + 10] = std::byte{1};
  seal(&padding);
  cases->add("padding_before_blocks", padding);

  SectionBytes params = raw_section(raw_payload({7}));
  params.params = bytes_of({1, 2, 3});
  cases->add("params_for_raw", params);
  SectionBytes step_params = step_section(step_payload(1, bytes_of({0}), {}, {}));
  step_params.params = Bytes(16);
  cases->add("params_for_step", step_params);
  SectionBytes dense_params =
      dense_section(le(uint32_t{1}) + le(uint32_t{100}) + le(uint32_t{100}) + Bytes(200));
  dense_params.params = Bytes(4);
  cases->add("params_for_dense", dense_params);
}

// Sections of two blocks; the tensor is as large.
void add_block_cases(std::vector<HostileSection>* out) {
  constexpr uint64_t kTwoBlocks = 65536 + 100;
  SectionBytes two = raw_section(raw_payload({7}), 2);
  two.rows = kTwoBlocks;
  two.blocks = {raw_payload({1}), raw_payload({2})};
  const auto add = [&](const char* name, const SectionBytes& section) {
    out->push_back({name, Code::kCorrupt, section.build(), DType::kBF16, {kTwoBlocks, 1, 2}});
  };
  SectionBytes uneven = two;
  uneven.block_units = {{2, 4}};
  add("block_begins_in_the_one_before", uneven);
  SectionBytes one_change = two;
  one_change.changed = 1;
  add("more_blocks_touched_than_changes", one_change);
  SectionBytes outside = two;
  outside.blocks[1] = raw_payload({100});
  add("position_in_missing_part_of_last_block", outside);
}

void add_raw_cases(Cases* cases) {
  const auto raw = [cases](const char* name, const Bytes& payload, uint64_t changed = 1) {
    cases->add(name, raw_section(payload, changed));
  };
  raw("raw_counts_no_change", le(uint32_t{0}) + Bytes(12));
  raw("raw_counts_more_than_elements", le(uint32_t{101}) + Bytes(1000));
  raw("raw_counts_2_to_32", le(~uint32_t{0}) + Bytes(60));
  raw("raw_words_missing", le(uint32_t{9}) + Bytes(44), 9);
  raw("raw_position_repeated", raw_payload({7, 7}), 2);
  raw("raw_positions_descend", raw_payload({7, 6}), 2);
  raw("raw_position_outside_block", raw_payload({100}));
  raw("raw_padding_not_zero", raw_payload({7}) + bytes_of({0, 1}));
  raw("changes_do_not_add_up", raw_payload({7}), 2);
  raw("raw_bytes_left_over", raw_payload({7}) + Bytes(6));
}

void add_step_cases(Cases* cases) {
  const auto step = [cases](const char* name, const Bytes& payload, uint64_t changed = 1) {
    cases->add(name, step_section(payload, changed));
  };
  step("step_counts_no_change", step_payload(0, {}, {}, {}));
  step("step_counts_more_than_elements", step_payload(101, Bytes(101), {}, {}));
  step("step_counts_2_to_32", step_payload(~uint32_t{0}, Bytes(4), {}, {}));
  step("step_tokens_longer_than_payload", le(uint32_t{1}) + le(~uint32_t{0}) + le(uint32_t{0}));
  step("step_streams_sum_wraps", le(uint32_t{1}) + le(uint32_t{1}) + le(~uint32_t{0}) + Bytes(4));
  step("step_tokens_longer_than_count", step_payload(1, bytes_of({0, 0}), {}, {}));
  step("step_sizes_without_moves", step_payload(1, bytes_of({0}), bytes_of({0}), {}));
  step("step_sizes_missing", step_payload(1, bytes_of({2}), {}, {}));
  step("step_token_192", step_payload(1, bytes_of({192}), {}, Bytes(8)));
  step("step_token_255", step_payload(1, bytes_of({255}), bytes_of({0}), Bytes(8)));
  // Gap class 13 begins at 96 and has 5 raw bits: 96 + 4 = element 100.
  step("step_gap_beyond_block", step_payload(1, bytes_of({13 << 2}), {}, bytes_of({4})));
  step("step_gap_far_beyond_block", step_payload(1, bytes_of({47 << 2}), {}, Bytes(3)));
  step("step_gaps_add_up_beyond_block",
       step_payload(2, bytes_of({12 << 2, 11 << 2}), {}, bytes_of({0x1F, 0x01})), 2);
  step("step_size_15_for_16_bits", step_payload(1, bytes_of({2}), bytes_of({15}), Bytes(2)));
  step("step_size_255", step_payload(1, bytes_of({2}), bytes_of({255}), Bytes(2)));
  step("step_up_by_half_the_range",
       step_payload(1, bytes_of({2}), bytes_of({14}), bytes_of({0xFF, 0x3F})));
  SectionBytes bits_missing = step_section(step_payload(1, bytes_of({0}), {}, {}));
  bits_missing.blocks[0] =
      step_payload(3, bytes_of({2, 0, 0}), bytes_of({14}), {});  // exactly 16 bytes: no bits
  bits_missing.changed = 3;
  cases->add("step_bits_missing", bits_missing);
  step("step_bits_left_over", step_payload(1, bytes_of({0}), {}, Bytes(7)));
  step("step_unused_bits_not_zero", step_payload(1, bytes_of({2}), bytes_of({1}), bytes_of({2})));
  step("step_padding_not_zero", step_payload(1, bytes_of({0}), {}, bytes_of({0, 0, 1})));
}

void add_frame_cases(Cases* cases) {
  using P = std::pair<ZSTD_cParameter, int>;
  const Bytes good = zstd_frame(60, {});
  cases->token_frame("frame_is_no_zstd", Bytes(30));
  cases->token_frame("frame_skippable", le(uint32_t{0x184D2A50}) + le(uint32_t{8}) + Bytes(8));
  cases->token_frame("frame_content_too_long", zstd_frame(61, {}));
  cases->token_frame("frame_content_too_short", zstd_frame(59, {}));
  cases->token_frame("frame_without_content_size", zstd_frame(60, {P{ZSTD_c_contentSizeFlag, 0}}));
  cases->token_frame("frame_with_checksum", zstd_frame(60, {P{ZSTD_c_checksumFlag, 1}}));
  cases->token_frame("frame_claims_2_to_60_bytes", rle_frame(uint64_t{1} << 60, 60));
  cases->token_frame("frame_block_larger_than_content", rle_frame(60, 100'000));
  cases->token_frame("frame_block_smaller_than_content", rle_frame(60, 59));
  // Content size 60 in one byte is only for single segments; two bytes hold it less 256, so the
  // window cases state it in eight. Descriptor 0xC0: a window byte follows, here 2^25 and 2^41.
  cases->token_frame("frame_window_2_to_25", bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0xC0, 0x78}) +
                                                 le(uint64_t{60}) + bytes_of({0xE3, 1, 0, 0}));
  cases->token_frame("frame_window_2_to_41", bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0xC0, 0xF8}) +
                                                 le(uint64_t{60}) + bytes_of({0xE3, 1, 0, 0}));
  cases->token_frame("frame_with_dictionary",
                     bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0x21, 1, 60}) + bytes_of({0xE3, 1, 0, 0}));
  cases->token_frame("frame_reserved_bit",
                     bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0x28, 60}) + bytes_of({0xE3, 1, 0, 0}));
  cases->token_frame("frame_reserved_block_type",
                     bytes_of({0x28, 0xB5, 0x2F, 0xFD, 0x20, 60}) + bytes_of({0xE7, 1, 0, 0}));
  cases->token_frame("frame_twice", good + good);
  cases->token_frame("frame_and_a_byte", good + bytes_of({0}));
  const Bytes cut(good.begin(), good.end() - 1);
  cases->token_frame("frame_cut", cut);
  Bytes head = good;
  head.resize(6);
  cases->token_frame("frame_header_cut", head);
}

void add_dense_cases(Cases* cases) {
  const auto dense = [cases](const char* name, const Bytes& payload) {
    cases->add(name, dense_section(payload));
  };
  const auto head = [](uint32_t changed, uint32_t low, uint32_t high) {
    return le(changed) + le(low) + le(high);
  };
  dense("dense_counts_no_change", head(0, 100, 100) + Bytes(200));
  dense("dense_counts_more_than_elements", head(101, 100, 100) + Bytes(200));
  dense("dense_plane_beyond_payload", head(1, 100, 1000) + Bytes(200));
  dense("dense_plane_of_2_to_32", head(1, ~uint32_t{0}, 100) + Bytes(200));
  dense("dense_plane_longer_than_content", head(1, 101, 100) + Bytes(201));
  dense("dense_plane_short", head(1, 99, 100) + Bytes(199));
  dense("dense_padding_not_zero", head(1, 100, 100) + Bytes(200) + bytes_of({1}));
  dense("dense_bytes_left_over", head(1, 100, 100) + Bytes(240));
  dense("dense_plane_bomb", head(1, 17, 100) + rle_frame(100, 2'000'000) + Bytes(100));
}

}  // namespace

std::vector<HostileSection> hostile_sections() {
  Cases cases;
  add_header_cases(&cases);
  add_layout_cases(&cases);
  add_raw_cases(&cases);
  add_step_cases(&cases);
  add_frame_cases(&cases);
  add_dense_cases(&cases);
  std::vector<HostileSection> all = cases.take();
  for (HostileSection& hostile : hostile_classes()) all.push_back(std::move(hostile));
  add_block_cases(&all);
  return all;
}

}  // namespace siltstone::test
