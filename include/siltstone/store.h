// A Store is a bucket: named byte objects, write-once, range-readable. It knows nothing about
// tensors or versions.
//
// The one primitive that the commit protocol needs is create: it makes the name and its whole
// content appear at once, durably, or fails because the name exists.
//
// Threads: every method may be called from many threads at once. Errors: kNotFound (no object of
// that name), kConflict (create: it exists), kUnavailable (passing; after a create the outcome is
// unknown), kPermission, kIo, kCorrupt (object shorter than the range asked for).
#pragma once

#include <atomic>
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
  // 64 hexadecimal digits where the SHA-256 is known already; else empty.
  virtual std::string sha256() const { return {}; }
};

struct ObjectInfo {
  std::string name;
  uint64_t size_bytes = 0;
};

struct StoreTraits {
  bool create_exclusive = true;  // create really is atomic and exclusive
  bool local = false;            // reads cost what reads of a local file cost
  bool retries = false;          // passing failures have been tried again when they are reported
  bool waits = false;            // wait() waits
  unsigned transfers = 1;        // how many requests at once it is worth to make
};

class Store {
 public:
  virtual ~Store() = default;

  virtual std::string url() const = 0;
  virtual StoreTraits traits() const = 0;

  virtual Result<uint64_t> size_bytes(std::string_view name) = 0;

  // Fills `out` from the object's byte `offset_bytes` on.
  virtual Status read(std::string_view name, uint64_t offset_bytes, std::span<std::byte> out) = 0;

  // The whole object. kCorrupt if it has more than `limit_bytes`.
  virtual Result<std::string> read_all(std::string_view name, uint64_t limit_bytes);

  // Waits until there is an object of that name, at most `seconds`, or until `stop` becomes true;
  // returns whether there is one. Only where traits().waits; others say false at once.
  virtual Result<bool> wait(std::string_view name, double seconds, const std::atomic<bool>* stop);

  // Creates the object; when it returns without error the object is durable.
  virtual Status create(std::string_view name, const ByteSource& content) = 0;

  // Overwrites or creates; a reader sees the old bytes or the new ones. For hints only: truth never
  // rests on an object that can be replaced.
  virtual Status replace(std::string_view name, std::span<const std::byte> content) = 0;

  // All objects whose names start with `prefix`, by name.
  virtual Result<std::vector<ObjectInfo>> list(std::string_view prefix) = 0;

  // No error if there is no such object.
  virtual Status remove(std::string_view name) = 0;

  // From now on create looks whether the name is free and then writes it, so that of two writers at
  // once both may succeed: for servers that cannot do better. kUnsupported where that is not
  // needed.
  virtual Status use_single_writer();
};

// How a store behind a network is talked to.
struct StoreOptions {
  unsigned transfers = 16;        // requests at once, 1 to 256
  uint64_t bytes_per_second = 0;  // of all transfers together, each way; 0: no limit
  double connect_seconds = 10;    // until a connection stands
  double stall_seconds = 30;      // without a byte: the request is given up and made again
  double total_seconds = 300;     // of trying one request again, before it fails as kUnavailable
  std::string relay;              // http:// URL of a relay to read through (siltstone relay)
};

// A path, file:///path, s3://bucket/prefix?endpoint=...&region=..., hf://buckets/namespace/name,
// http(s)://host/path (read only), or mem://name (process-wide, for tests). A directory is created
// by Repository::init, a bucket by the tools of its server; no request is made here.
// Credentials: as for `aws` (AWS_ACCESS_KEY_ID and so on, or profile files).
Result<std::shared_ptr<Store>> open_store(std::string_view url, const StoreOptions& options = {});

// Whether `name` is a legal object name: [a-z0-9._-]{1,128}(/...){0,6}, at most 512 bytes, no
// component that is "." or "..".
bool is_object_name(std::string_view name);

}  // namespace siltstone
