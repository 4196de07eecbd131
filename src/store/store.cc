// What stores do where they have nothing better.
#include "siltstone/store.h"

#include "base/try.h"

namespace siltstone {

Result<std::string> Store::read_all(std::string_view name, uint64_t limit_bytes) {
  SILT_ASSIGN(const uint64_t size, size_bytes(name));
  if (size > limit_bytes) {
    return Error{Code::kCorrupt, "object '" + std::string(name) + "' has " + std::to_string(size) +
                                     " bytes, at most " + std::to_string(limit_bytes) +
                                     " are allowed"};
  }
  std::string content(size, '\0');
  if (size > 0) SILT_TRY(read(name, 0, std::as_writable_bytes(std::span(content))));
  return content;
}

Result<bool> Store::wait(std::string_view, double, const std::atomic<bool>*) {
  return false;
}

Status Store::use_single_writer() {
  return Error{Code::kUnsupported, "'" + url() + "' needs no single-writer mode"};
}

}  // namespace siltstone
