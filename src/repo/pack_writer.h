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

// Threads: one at a time.
class PackWriter {
 public:
  // Keys are `key_prefix` + number + ".safetensors"; a pack is written once its sections have
  // `pack_bytes`. `from_root` stands in the packs' metadata. Packs of `tables_from_bytes` tell
  // readers how to take parts of them. Borrows store and uploads.
  PackWriter(Store& store, Uploads& uploads, std::string key_prefix, std::string from_root,
             uint64_t pack_bytes, uint64_t tables_from_bytes)
      : store_(store),
        uploads_(uploads),
        key_prefix_(std::move(key_prefix)),
        from_root_(std::move(from_root)),
        pack_bytes_(pack_bytes),
        tables_from_bytes_(tables_from_bytes) {}

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
  const uint64_t pack_bytes_;
  const uint64_t tables_from_bytes_;
  std::map<std::string, std::vector<std::byte>, InNumberOrder> pack_;
  uint64_t gathered_bytes_ = 0;
  Artifact artifact_;
};

}  // namespace siltstone
