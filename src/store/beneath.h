// Opening files beneath a folder, one component at a time, never through a symbolic link: whoever
// can write into a bucket must not be able to lead its readers and writers out of it.
//
// Folders are Files here: open descriptors with a path for messages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/files.h"
#include "siltstone/result.h"

namespace siltstone {

// "a/b/c" -> folder "a/b", leaf "c".
struct SplitName {
  std::string_view folder;
  std::string_view leaf;
};
SplitName split_name(std::string_view name);

// Follows symbolic links: the root's path is the user's own.
Result<File> open_root(const std::filesystem::path& path);

// kNotFound if it is absent or a file, kCorrupt if it is a symbolic link.
Result<File> open_folder(const File& parent, std::string_view component);

// Opens the folder `path` ("a/b", or "" for the root itself) component by component.
Result<File> open_folders(File root, std::string_view path);

// The same, creating what is missing. Each folder's entry is made durable in its parent unless
// `known_durable(path so far)` says that it is. kInvalidArgument if a component is a file.
Result<File> make_folders(File root, std::string_view path,
                          const std::function<bool(std::string_view)>& known_durable);

// Size of a regular file; kNotFound if it is absent or a folder, kCorrupt if it is anything else.
Result<uint64_t> file_size_bytes(const File& folder, std::string_view leaf);

// Opens a regular file for reading, with the errors of file_size_bytes.
Result<File> open_file(const File& folder, std::string_view leaf);

}  // namespace siltstone
