// Checksums over bytes: XXH64 for transport errors, SHA-256 for identity.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"

namespace siltstone {

// XXH64 with seed 0, as specified by its reference description (xxHash 0.8).
uint64_t xxh64(ByteSpan bytes);

using Sha256Digest = std::array<std::byte, 32>;

Sha256Digest sha256(ByteSpan bytes);
std::string sha256_hex(ByteSpan bytes);

// HMAC with SHA-256 (RFC 2104). REQUIRES: the key is below 2 GiB.
Sha256Digest hmac_sha256(ByteSpan key, ByteSpan message);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(ByteSpan bytes);
  Sha256Digest finish();  // once
  Sha256 copy() const;    // REQUIRES: not finished

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace siltstone
