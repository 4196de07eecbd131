#include "base/checksum.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <xxhash.h>
#include <cstdlib>
#include <new>

namespace siltstone {

uint64_t xxh64(ByteSpan bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

// OpenSSL's SHA-256 fails only when memory is exhausted or the library has been crippled by a
// provider configuration without it: neither can be carried on from.
Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr) throw std::bad_alloc();
  if (EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1) std::abort();
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(ByteSpan bytes) {
  if (EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) != 1) std::abort();
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  unsigned length = 0;
  auto* out = reinterpret_cast<unsigned char*>(digest.data());
  if (EVP_DigestFinal_ex(state_->context, out, &length) != 1) std::abort();
  return digest;
}

Sha256 Sha256::copy() const {
  Sha256 out;
  if (EVP_MD_CTX_copy_ex(out.state_->context, state_->context) != 1) std::abort();
  return out;
}

Sha256Digest sha256(ByteSpan bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

std::string sha256_hex(ByteSpan bytes) {
  return to_hex(sha256(bytes));
}

Sha256Digest hmac_sha256(ByteSpan key, ByteSpan message) {
  Sha256Digest digest;
  const auto* from = reinterpret_cast<const unsigned char*>(message.data());
  auto* out = reinterpret_cast<unsigned char*>(digest.data());
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), from, message.size(), out,
           nullptr) == nullptr) {
    std::abort();
  }
  return digest;
}

}  // namespace siltstone
