#include "repo/probe.h"

#include <array>

#include "base/files.h"
#include "base/try.h"
#include "repo/objects.h"

namespace siltstone {
namespace {

constexpr uint64_t kLimitBytes = 4096;

Error unfit(const Store& store, const std::string& what) {
  return {Code::kUnsupported, "'" + store.url() + "' cannot hold a repository: " + what};
}

// Of a store that does not create exclusively.
Error not_exclusive(const Store& store, const std::string& how) {
  return unfit(store, how +
                          " (If-None-Match), and without that two writers could overwrite each "
                          "other's versions. If only one process ever writes, `siltstone init "
                          "--single-writer` accepts that");
}

Error overwrites(const Store& store) {
  return not_exclusive(store, "it creates objects also where there is one already");
}

Status probe_create(Store& store, const std::string& name, std::string_view first,
                    std::string_view second) {
  const Status created = create_unique(store, name, PiecesSource({as_bytes(first)}));
  if (!created && created.error().code == Code::kUnsupported)
    return not_exclusive(store, "it refuses to create objects only where there are none");
  if (!created) return created;
  const Status again = store.create(name, PiecesSource({as_bytes(second)}));
  if (again) return overwrites(store);
  if (again.error().code != Code::kConflict) return again.error();
  SILT_ASSIGN(const std::string found, store.read_all(name, kLimitBytes));
  if (found == second) return overwrites(store);
  if (found != first) return unfit(store, "it does not give back what was written into it");
  std::string part(5, '?');
  SILT_TRY(store.read(name, 7, std::as_writable_bytes(std::span(part))));
  if (part != first.substr(7, 5)) return unfit(store, "it does not read ranges of objects");
  return {};
}

Status probe_empty(Store& store, const std::string& name) {
  SILT_TRY(create_unique(store, name, PiecesSource({})));
  SILT_ASSIGN(const uint64_t size, store.size_bytes(name));
  if (size != 0) return unfit(store, "it does not keep empty objects as they are");
  return {};
}

}  // namespace

Status probe_store(Store& store) {
  std::array<std::byte, 16> nonce;
  random_bytes(nonce);
  const std::string name = "probe/" + to_hex(nonce);
  const std::string empty = name + "-empty";
  Status probed = probe_create(store, name, "created first", "created second, longer");
  if (probed) probed = probe_empty(store, empty);
  // A writer may lack the right to remove: what stays is small, and nothing reads it.
  (void)store.remove(name);
  (void)store.remove(empty);
  return probed;
}

}  // namespace siltstone
