// Writes what a version consists of apart from its words: companion files and the schema.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "repo/history.h"
#include "repo/uploads.h"
#include "siltstone/checkpoint.h"
#include "siltstone/store.h"

namespace siltstone {

// Borrows all it is given, and must outlive the uploads.
class SchemaWriter {
 public:
  SchemaWriter(Store& store, History& history, Uploads& uploads)
      : store_(store), history_(history), uploads_(uploads) {}

  // Adds the companions of `next` to `schema`, and hands to the uploads what does not exist yet.
  // Behind a network, where a question costs a request, what `before` (which may be null) names is
  // taken to be there, and so is a schema that this process has seen. Returns the schema's hash.
  Result<std::string> write(const Checkpoint& next, const Schema* before, Schema* schema);

  // Of what did not exist; once the uploads are finished.
  uint64_t bytes_written() const { return bytes_written_; }

 private:
  Status write_companions(const Checkpoint& next, const Schema* before, Schema* schema);
  Status write_object(std::string key, std::string hash, std::string content);

  Store& store_;
  History& history_;
  Uploads& uploads_;
  std::atomic<uint64_t> bytes_written_{0};
};

}  // namespace siltstone
