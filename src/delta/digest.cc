#include "delta/digest.h"

#include <algorithm>

#include "base/checksum.h"
#include "delta/kernels/digest_keys.h"
#include "delta/kernels/kernels.h"

namespace siltstone {
namespace {

constexpr uint64_t kWordBytes = 8;

// Word `index` of the bytes; zeros stand where they end inside it.
uint64_t word_at(ByteSpan bytes, uint64_t index) {
  const uint64_t begin = index * kWordBytes;
  if (bytes.size() - begin >= kWordBytes) return load_le<uint64_t>(bytes.data() + begin);
  uint64_t word = 0;
  std::memcpy(&word, bytes.data() + begin, bytes.size() - begin);
  return word;
}

std::array<std::byte, 16> sum_bytes(const Sum128& sum) {
  std::array<std::byte, 16> bytes;
  store_le(bytes.data(), sum.a);
  store_le(bytes.data() + 8, sum.b);
  return bytes;
}

template <class T>
void append_le(std::vector<std::byte>* out, T value) {
  std::byte bytes[sizeof(T)];
  store_le(bytes, value);
  out->insert(out->end(), bytes, bytes + sizeof(T));
}

}  // namespace

std::string to_hex(const Sum128& sum) {
  return to_hex(ByteSpan(sum_bytes(sum)));
}

bool sum_from_hex(std::string_view text, Sum128* out) {
  std::array<std::byte, 16> bytes;
  if (!from_hex(text, bytes)) return false;
  *out = {load_le<uint64_t>(bytes.data()), load_le<uint64_t>(bytes.data() + 8)};
  return true;
}

Sum128 digest_bytes(ByteSpan bytes, uint64_t offset_bytes) {
  const uint64_t first_word = offset_bytes / kWordBytes;
  const uint64_t whole = bytes.size() / kWordBytes;
  Sum128 sum = kernels().digest(bytes.data(), whole, first_word);
  if (bytes.size() % kWordBytes != 0) {
    std::byte last[kWordBytes];
    store_le(last, word_at(bytes, whole));
    sum += kernels().digest(last, 1, first_word + whole);
  }
  return sum;
}

Sum128 digest_change(ByteSpan old_bytes, ByteSpan new_bytes, std::span<const uint16_t> positions,
                     unsigned word_bytes, uint64_t offset_bytes) {
  const uint64_t first_word = offset_bytes / kWordBytes;
  Sum128 total;
  Sum128 part;  // of the block at hand, before its factors
  uint64_t block = first_word / kDigestBlockWords;
  const auto close_block = [&] {
    total.a += part.a * digest_factor_a(block);
    total.b += part.b * digest_factor_b(block);
    part = {};
  };
  uint64_t previous = UINT64_MAX;
  for (const uint16_t position : positions) {
    const uint64_t index = uint64_t{position} * word_bytes / kWordBytes;
    if (index == previous) continue;  // a neighbour in the same 8 bytes
    previous = index;
    const uint64_t in_tensor = first_word + index;
    if (in_tensor / kDigestBlockWords != block) {
      close_block();
      block = in_tensor / kDigestBlockWords;
    }
    const uint64_t* key = kDigestKeys.key + in_tensor % kDigestBlockWords;
    const uint64_t old_word = word_at(old_bytes, index);
    const uint64_t new_word = word_at(new_bytes, index);
    part.a += digest_term(new_word, key[0]) - digest_term(old_word, key[0]);
    part.b +=
        digest_term(new_word, key[kDigestLaneShift]) - digest_term(old_word, key[kDigestLaneShift]);
  }
  close_block();
  return total;
}

std::string state_root(std::span<const StateRow> rows) {
  Sha256 hash;
  hash.update(as_bytes("siltstone-state-v1\n"));
  std::vector<std::byte> row_bytes;
  for (const StateRow& row : rows) {
    row_bytes.clear();
    append_le(&row_bytes, static_cast<uint32_t>(row.name.size()));
    const ByteSpan name = as_bytes(row.name);
    row_bytes.insert(row_bytes.end(), name.begin(), name.end());
    append_le(&row_bytes, static_cast<uint8_t>(row.dtype));
    append_le(&row_bytes, static_cast<uint8_t>(row.shape.size()));
    for (const int64_t dimension : row.shape) append_le(&row_bytes, dimension);
    append_le(&row_bytes, row.sum.a);
    append_le(&row_bytes, row.sum.b);
    hash.update(row_bytes);
  }
  return to_hex(ByteSpan(hash.finish()));
}

}  // namespace siltstone
