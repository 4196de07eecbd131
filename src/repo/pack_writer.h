// Gathers sections into packs and hands these to uploads, one object each.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "repo/commit.h"
#include "repo/uploads.h"
#include "siltstone/store.h"

namespace siltstone {

// Names with the numbers in them as numbers: experts.9 before experts.10. So what one rank holds
// lies together in a pack.
struct InNumberOrder {
  bool operator()(const std::string& x, const std::string& y) const;
};

struct PackOptions {
  uint64_t pack_bytes = 0;  // a pack is written once its sections have as many
  // Packs of as many bytes have tables (docs/format/delta_pack.md).
  uint64_t tables_from_bytes = UINT64_MAX;
  bool chunks = true;  // among the tables, so that readers can take parts of a pack
};

// Threads: one at a time.
class PackWriter {
 public:
  // Keys are `key_prefix` + number + ".safetensors". `from_root` stands in the packs' metadata.
  // Borrows store and uploads.
  PackWriter(Store& store, Uploads& uploads, std::string key_prefix, std::string from_root,
             const PackOptions& options)
      : store_(store),
        uploads_(uploads),
        key_prefix_(std::move(key_prefix)),
        from_root_(std::move(from_root)),
        options_(options) {}

  // Sections of one tensor, which are changed in `changed_elements` places.
  Status add(const std::string& tensor, std::vector<std::byte> sections, uint64_t changed_elements);

  // Hands on what is left and returns the artifact; its roots are the caller's to fill in. It
  // exists once the uploads are finished.
  Result<Artifact> finish();

 private:
  Status flush();

  Store& store_;
  Uploads& uploads_;
  const std::string key_prefix_;
  const std::string from_root_;
  const PackOptions options_;
  std::map<std::string, std::vector<std::byte>, InNumberOrder> pack_;
  uint64_t gathered_bytes_ = 0;
  Artifact artifact_;
};

}  // namespace siltstone
