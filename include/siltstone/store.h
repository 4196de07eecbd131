// A Store is a bucket: named byte objects, write-once, range-readable. It knows nothing about
// tensors or versions.
//
// The one primitive that the commit protocol needs is create: it makes the name and its whole
// content appear at once, durably, or fails because the name exists.
//
// Threads: every method may be called from many threads at once. Errors: kNotFound (no object of
// that name), kConflict (create: it exists), kUnavailable (passing; after a create the outcome is
// unknown), kPermission, kIo, kCorrupt (object shorter than the range asked for, or something that
// is no object in its place). docs/format/store.md has the whole contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "siltstone/result.h"

namespace siltstone {

// Bytes that can be read more than once, so that a write can be sent again.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size_bytes() const = 0;
  // REQUIRES: offset_bytes + out.size() <= size_bytes().
  virtual Status read(uint64_t offset_bytes, std::span<std::byte> out) const = 0;
};

struct ObjectInfo {
  std::string name;
  uint64_t size_bytes = 0;
};

struct StoreTraits {
  bool create_exclusive = true;  // create really is atomic and exclusive
  bool local = false;            // reads cost what reads of a local file cost
};

class Store {
 public:
  virtual ~Store() = default;

  virtual std::string url() const = 0;
  virtual StoreTraits traits() const = 0;

  virtual Result<uint64_t> size_bytes(std::string_view name) = 0;

  // Fills `out` from the object's byte `offset_bytes` on.
  virtual Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) = 0;

  // Creates the object; when it returns without error the object is durable.
  virtual Status create(std::string_view name, const ByteSource& content) = 0;

  // Overwrites or creates; a reader sees the old bytes or the new ones. For hints only: truth never
  // rests on an object that can be replaced.
  virtual Status replace(std::string_view name, std::span<const std::byte> content) = 0;

  // All objects whose names start with `prefix`, by name.
  virtual Result<std::vector<ObjectInfo>> list(std::string_view prefix) = 0;

  // No error if there is no such object.
  virtual Status remove(std::string_view name) = 0;
};

// A path, file:///path, or mem://name (process-wide, for tests). A directory that does not exist is
// made by the first object written to it, never here.
Result<std::shared_ptr<Store>> open_store(std::string_view url);

// Whether `name` is a legal object name: [a-z0-9._-]{1,128}(/...){0,6}, at most 512 bytes, no
// component that is "." or "..".
bool is_object_name(std::string_view name);

}  // namespace siltstone
