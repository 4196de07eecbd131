// The words of a model folder whose layout is known, read for staging.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/files.h"
#include "repo/rebuild.h"
#include "repo/schema.h"

namespace siltstone {

class FolderBytes final : public StateBytes {
 public:
  // Opens the schema's weight files below `folder`; kMismatch if one is absent or its size or
  // header is not what the schema says. `schema` is borrowed.
  static Result<std::unique_ptr<FolderBytes>> open(const std::filesystem::path& folder,
                                                   const Schema& schema);

  Status read(size_t tensor, uint64_t offset_bytes, MutByteSpan out) const override {
    const FilePlace& place = places_[tensor];
    return files_[place.file].read_at(place.offset_bytes + offset_bytes, out);
  }
  const File& file(size_t number) const { return files_[number]; }

 private:
  std::vector<FilePlace> places_;
  std::vector<File> files_;
};

}  // namespace siltstone
