#include "support/hostile_classes.h"

#include <bit>

namespace siltstone::test {
namespace {

class BitString {
 public:
  BitString& put(uint64_t value, unsigned count) {
    for (unsigned i = 0; i < count; ++i, ++size_) {
      if (size_ % 8 == 0) bytes_.push_back(std::byte{0});
      if (i < 64 && (value >> i & 1) != 0) bytes_.back() |= std::byte{1} << (size_ % 8);
    }
    return *this;
  }
  // A number of a block's head: its width, then itself.
  BitString& number(uint32_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    return put(width, 5).put(value, width);
  }
  BitString& align() {
    while (size_ % 32 != 0) put(0, 1);
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
  size_t size_ = 0;
};

// All old words are +0, of exponent 0: dense if the threshold is above 0, else of class 0.
struct Params {
  unsigned sparse = 1;
  unsigned threshold = 0;
  unsigned tables = 1;
  unsigned sent = 0;  // bit per table
  unsigned rice = 0;
  BitString bits() const {
    BitString out;
    out.put(0, 2).put(sparse, 4).put(threshold, 12).put(tables, 5).put(0, 6).put(sent, tables);
    for (unsigned k = 0; k < sparse; ++k) out.put(rice, 5);
    return out;
  }
};

class Cases {
 public:
  void params(const char* name, const Bytes& bytes) { add(name, bytes, Bytes(16)); }
  void sparse(const char* name, const BitString& payload, uint64_t changed = 1) {
    add(name, Params().bits().bytes(), payload.bytes(), changed);
  }
  void dense(const char* name, const BitString& payload, uint64_t changed = 1) {
    Params params;
    params.threshold = 1;
    add(name, params.bits().bytes(), payload.bytes(), changed);
  }
  // All words were what they are one version before, too.
  void momentum(const char* name, const Bytes& params, const Bytes& payload) {
    add(name, params, payload, 1, true);
  }
  std::vector<HostileSection> take() { return std::move(cases_); }

 private:
  void add(const char* name, const Bytes& params, const Bytes& payload, uint64_t changed = 1,
           bool momentum = false) {
    SectionBytes section;
    section.codec = momentum ? 6 : 4;
    section.need = momentum ? 3 : 2;
    section.changed = changed;
    section.params = params;
    section.blocks = {payload};
    cases_.push_back({name, Code::kCorrupt, section.build()});
  }
  std::vector<HostileSection> cases_;
};

void add_params(Cases* cases) {
  cases->params("class_no_params", {});
  Params p;
  p.sparse = 0;
  cases->params("class_no_sparse_class", p.bits().bytes());
  p = {};
  p.sparse = 9;
  cases->params("class_9_sparse_classes", p.bits().bytes());
  p = {};
  p.tables = 0;
  cases->params("class_no_table", p.bits().bytes());
  p = {};
  p.tables = 17;
  cases->params("class_17_tables", p.bits().bytes());
  p = {};
  p.threshold = 257;
  cases->params("class_threshold_beyond_exponents", p.bits().bytes());
  p = {};
  p.sent = 1;
  cases->params("class_table_missing", p.bits().bytes());
  cases->params("class_table_of_no_symbol", p.bits().put(0, 7).bytes());
  cases->params("class_table_of_72_symbols", p.bits().put(72, 7).put(0, 600).bytes());
  // 1,024 = low bits 0, then 129 in gamma code.
  cases->params("class_table_exceeds_1024",
                p.bits().put(2, 7).put(0, 3).put(1 << 7, 8).put(1, 7).bytes());
  cases->params("class_table_frequency_of_17_bits",
                p.bits().put(2, 7).put(0, 3).put(0, 10).put(1023, 20).bytes());
  cases->params("class_params_bytes_left_over", Params().bits().put(0, 16).bytes());
  cases->params("class_params_padding_not_zero", Params().bits().put(4, 3).bytes());
}

void add_sparse(Cases* cases) {
  const auto head = [](uint32_t count, uint32_t high, uint32_t exceptions) {
    BitString out;
    out.number(count).put(0, 1).number(high).number(exceptions).align();
    return out;
  };
  cases->sparse("class_no_change", BitString().number(0).put(0, 1).align());
  cases->sparse("class_more_changes_than_elements", head(101, 101, 0).put(~uint64_t{0}, 64));
  cases->sparse("class_fewer_high_bits_than_changes", head(3, 2, 0).put(7, 32), 3);
  cases->sparse("class_more_high_bits_than_elements", head(1, 102, 0).put(0, 64).put(0, 64));
  cases->sparse("class_more_exceptions_than_changes", head(1, 1, 2).put(1, 32).put(0, 64));
  cases->sparse("class_parts_longer_than_payload", head(60, 60, 0).put(~uint64_t{0}, 32), 60);
  cases->sparse("class_head_cut_off", BitString().put(31, 5).align(), 1);
  cases->sparse("class_head_padding_not_zero",
                BitString().number(1).put(0, 1).number(1).number(0).put(1, 4).align().put(1, 32));
  cases->sparse("class_gaps_cut_off", head(2, 3, 0).put(1, 32), 2);
  cases->sparse("class_gaps_left_over", head(1, 3, 0).put(1, 32));
  cases->sparse("class_gap_beyond_block", head(1, 101, 0).put(0, 100).put(1, 28));
  cases->sparse("class_gaps_add_up_beyond_block",
                head(2, 102, 0).put(0, 50).put(1, 1).put(0, 50).put(1, 27), 2);
  cases->sparse("class_exception_for_missing_change",
                head(1, 1, 1).put(1, 1).put(0, 1).put(1, 32).put(0x4000, 16));
  cases->sparse(
      "class_exceptions_descend",
      head(2, 2, 2).put(3, 2).put(0, 2).put(1, 32).put(0x4000, 16).put(0, 32).put(0x4000, 16), 2);
  cases->sparse("class_bits_left_over", head(1, 1, 0).put(1, 32).put(0, 32));
  cases->sparse("class_padding_not_zero", head(1, 1, 0).put(5, 32));
  cases->sparse("class_dense_part_without_dense_words", BitString()
                                                            .number(1)
                                                            .put(1, 1)
                                                            .number(0)
                                                            .number(1)
                                                            .number(0)
                                                            .align()
                                                            .put(1 << 16, 32)
                                                            .put(1 << 16, 32)
                                                            .put(1 << 16, 32)
                                                            .put(3 << 16, 32)
                                                            .put(1, 32));
}

void add_dense(Cases* cases) {
  const auto head = [](uint32_t words) {
    BitString out;
    out.number(0).put(1, 1).number(words).align();
    return out;
  };
  const auto states = [](BitString bits, uint32_t state) {
    for (int lane = 0; lane < 4; ++lane) bits.put(state, 32);
    return bits;
  };
  // Table 0 gives slots 0 to 978 to "unchanged": those states shrink below 2^16 at once.
  cases->dense("class_dense_words_not_announced", BitString().number(0).put(0, 1).align());
  cases->dense("class_changes_of_a_class_without_words",
               BitString().number(1).put(1, 1).number(0).number(1).number(0).align().put(0, 32), 1);
  cases->dense("class_states_missing", head(0));
  cases->dense("class_more_words_than_elements", states(head(101), 1 << 16).put(0, 64));
  cases->dense("class_words_longer_than_payload", states(head(60), 1 << 16).put(0, 32));
  cases->dense("class_words_cut_off", states(head(0), 1 << 16));
  cases->dense("class_words_left_over", states(head(100), ~uint32_t{0}).put(0, 1600));
  cases->dense("class_states_do_not_end", states(head(0), ~uint32_t{0}).put(0, 32));
  cases->dense("class_word_padding_not_zero", states(head(1), 1 << 16).put(1 << 16, 32));
  // Slot 1023 is the escape, whose 16 bits are not there.
  cases->dense("class_escape_without_bits", states(head(0), 0xFFFFFFFF));
}

// What differs from class: three tables for each exponent, and changes that are not counted in
// symbols.
void add_momentum(Cases* cases) {
  const auto params = [](unsigned tables, unsigned sent) {
    return BitString().put(0, 2).put(1, 4).put(1, 12).put(tables, 5).put(0, 6).put(sent,
                                                                                   3 * tables);
  };
  const auto payload = [](uint32_t words, uint32_t state) {
    BitString bits;
    bits.number(0).put(1, 1).number(words).align();
    for (int lane = 0; lane < 4; ++lane) bits.put(state, 32);
    return bits;
  };
  const Bytes good = params(1, 0).put(0, 5).bytes();
  cases->momentum("momentum_no_params", {}, Bytes(16));
  cases->momentum("momentum_no_table", params(0, 0).put(0, 5).bytes(), Bytes(16));
  cases->momentum("momentum_17_tables", params(17, 0).put(0, 5).bytes(), Bytes(16));
  cases->momentum("momentum_table_missing", params(1, 4).put(0, 5).bytes(), Bytes(16));
  cases->momentum("momentum_states_missing", good,
                  BitString().number(0).put(1, 1).number(0).align().bytes());
  cases->momentum("momentum_words_cut_off", good, payload(0, 1 << 16).bytes());
  cases->momentum("momentum_states_do_not_end", good, payload(0, ~uint32_t{0}).put(0, 32).bytes());
  cases->momentum("momentum_escape_without_bits", good, payload(0, 0xFFFFFFFF).bytes());
}

}  // namespace

std::vector<HostileSection> hostile_classes() {
  Cases cases;
  add_params(&cases);
  add_sparse(&cases);
  add_dense(&cases);
  add_momentum(&cases);
  return cases.take();
}

}  // namespace siltstone::test
