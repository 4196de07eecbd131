#include "support/hostile_sections.h"

#include <zstd.h>

#include <initializer_list>

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

Bytes raw_payload(std::initializer_list<uint32_t> positions) {
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
  half.resize(96);
  cases->add("header_cut", half);
  cases->poked("wrong_magic", 0, uint32_t{0x53544C54});
  cases->poked("version_0", 4, uint8_t{0});
  cases->poked("version_2", 4, uint8_t{2}, Code::kUnsupported);
  cases->poked("block_exponent_12", 5, uint8_t{12});
  cases->poked("block_exponent_25", 5, uint8_t{25});
  cases->poked("codec_0", 6, uint16_t{0});
  cases->poked("codec_unknown", 6, uint16_t{999}, Code::kUnsupported);
  cases->poked("dtype_0", 8, uint8_t{0}, Code::kUnsupported);
  cases->poked("dtype_23", 8, uint8_t{23}, Code::kUnsupported);
  cases->poked("dtype_of_another_tensor", 8, static_cast<uint8_t>(DType::kF16));
  cases->poked("need_3", 9, uint8_t{3}, Code::kUnsupported);
  cases->poked("need_disagrees_with_codec", 9, uint8_t{2});
  cases->poked("reserved_not_zero", 10, uint16_t{1});
  cases->poked("params_longer_than_section", 12, uint32_t{0xFFFFFFF0});
  cases->poked("length_no_multiple_of_16", 16, uint64_t{137});
  cases->poked("length_beyond_the_entry", 16, uint64_t{1} << 40);
  cases->poked("length_of_header_only", 16, uint64_t{112});
  cases->poked("length_0", 16, uint64_t{0});
  cases->poked("no_rows", 32, uint64_t{0});
  cases->poked("no_columns", 48, uint64_t{0});
  cases->poked("rows_wrap", 24, ~uint64_t{0});
  cases->poked("columns_wrap", 40, ~uint64_t{0});
  cases->poked("elements_wrap", 48, uint64_t{1} << 62);
  cases->poked("more_bytes_than_any_tensor", 32, uint64_t{1} << 62);
  cases->poked("more_blocks_than_section", 32, uint64_t{1} << 40);
  cases->poked("rows_outside_tensor", 24, uint64_t{1});
  cases->poked("columns_outside_tensor", 40, uint64_t{1});
  cases->poked("no_changes", 56, uint64_t{0});
  cases->poked("more_changes_than_elements", 56, kRows + 1);
  Bytes unsealed = Cases::good();
  unsealed[96] ^= std::byte{1};
  cases->add("wrong_checksum", unsealed);
}

void add_layout_cases(Cases* cases) {
  cases->poked("block_ends_beyond_section", 104, uint32_t{2});
  cases->poked("block_ends_far_beyond_section", 104, uint32_t{0xFFFFFFFF});
  cases->poked("bytes_behind_last_block", 104, uint32_t{0});
  cases->poked("padding_before_blocks", 108, uint8_t{1});

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
  const auto add = [&](const char* name, Bytes bytes) {
    seal(&bytes);
    out->push_back({name, Code::kCorrupt, std::move(bytes), DType::kBF16, {kTwoBlocks, 1, 2}});
  };
  Bytes descending = two.build();
  poke(104, uint32_t{2}, &descending);
  poke(108, uint32_t{1}, &descending);
  add("block_ends_before_it_starts", descending);
  Bytes one_change = two.build();
  poke(56, uint64_t{1}, &one_change);
  add("more_blocks_touched_than_changes", one_change);
  SectionBytes outside = two;
  outside.blocks[1] = raw_payload({100});
  add("position_in_missing_part_of_last_block", outside.build());
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
  raw("raw_padding_not_zero", raw_payload({7}) + bytes_of({0, 0, 1}));
  raw("changes_do_not_add_up", raw_payload({7}), 2);
  raw("raw_bytes_left_over", raw_payload({7}) + Bytes(22));
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
  step("step_bits_left_over", step_payload(1, bytes_of({0}), {}, Bytes(19)));
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
  add_block_cases(&all);
  return all;
}

}  // namespace siltstone::test
