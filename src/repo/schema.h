// A schema: what a version consists of apart from its words - weight files with their exact
// headers, the tensors in them, companion files (docs/format/repository.md, "Schema").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "siltstone/checkpoint.h"
#include "siltstone/result.h"

namespace siltstone {

inline constexpr size_t kMaxSchemaBytes = size_t{64} << 20;

struct CompanionRef {
  std::string path;
  uint64_t size_bytes = 0;
  std::string sha256;
};

struct Schema {
  std::vector<WeightFile> files;
  std::vector<CompanionRef> companions;
  std::vector<TensorInfo> tensors;  // sorted by name; WeightFile entries index into it

  uint64_t total_bytes() const;
  uint64_t total_elements() const;  // words
};

std::string format_schema(const Schema& schema);
// `hash` is the SHA-256 that the object's name promises.
Result<Schema> parse_schema(std::string_view bytes, std::string_view hash);

// Whether a path is safe to create below a folder: relative, no empty, "." or ".." component, no
// control character, at most 1,024 bytes and 8 components, not ours (".siltstone").
bool is_safe_path(std::string_view path);

// kCorrupt unless every path is safe, none is used twice, and none is a folder of another.
Status check_paths(const Schema& schema);

}  // namespace siltstone
