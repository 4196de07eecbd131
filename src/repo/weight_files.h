// Writing a version's files into a folder: weight files with their exact headers, companions.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/direct_file.h"
#include "repo/rebuild.h"
#include "repo/schema.h"
#include "siltstone/store.h"

namespace siltstone {

class WeightFiles {
 public:
  // Creates the chosen weight files of the schema below `folder` (which exists), with their
  // headers.
  static Result<WeightFiles> create(const Schema& schema, const std::vector<size_t>& files,
                                    const std::filesystem::path& folder);

  // Writes words of a tensor. A tensor of a file that was not chosen is passed over.
  Status write(size_t tensor, uint64_t offset_bytes, ByteSpan words);
  // Makes the files durable and closes them.
  Status finish(unsigned threads);
  uint64_t bytes_written() const { return bytes_written_; }

 private:
  std::vector<FilePlace> places_;
  std::vector<DirectFile> files_;  // by number in the schema; not open where not chosen
  uint64_t bytes_written_ = 0;
};

// Reads a companion from the store, proves it by its hash.
Result<std::string> fetch_companion(Store& store, const CompanionRef& companion);

// Fetches companions into files below `folder`, as many at once as the store is worth. Returns
// their bytes.
Result<uint64_t> write_companions(Store& store, const std::vector<const CompanionRef*>& companions,
                                  const std::filesystem::path& folder);

// Creates a file with this content, durable, making the folders that its path needs.
Status write_new_file(const std::filesystem::path& path, ByteSpan content);

// Everything below `folder`, and the folder itself, durable as directory entries.
Status sync_folders(const std::filesystem::path& folder);

}  // namespace siltstone
