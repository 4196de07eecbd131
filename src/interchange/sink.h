// What an export writes: versions of ours as a foreign folder holds them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "delta/diff.h"
#include "interchange/model_state.h"
#include "siltstone/interchange.h"

namespace siltstone {

// Loads the version's state if it is not in memory.
using StateOf = std::function<Result<const ModelState*>()>;

class Sink {
 public:
  virtual ~Sink() = default;

  // The root that an export of ours noted with this version; empty text if none did, nothing if the
  // folder does not hold the version.
  virtual Result<std::optional<std::string>> root_of(uint64_t number) const = 0;

  // Both fill in full, bytes_written, changed_elements and path of *out.
  virtual Status write_full(const Version& version, const StateOf& state, ExportedVersion* out) = 0;
  // The difference from `before`, whose state is *old, to `next`; makes *old equal to `next`. False
  // if the layout cannot express it: nothing was written, and *old is unspecified.
  virtual Result<bool> write_delta(const Version& version, const Version& before, ModelState* old,
                                   const ModelState& next, ExportedVersion* out) = 0;
};

// Calls take(position) for every change, ascending.
template <class Take>
void each_position(const ChangeList& changes, Take take) {
  uint64_t i = 0;
  uint64_t run_begin = 0;
  for (const uint64_t end : changes.run_ends()) {
    for (; i < end; ++i) take(run_begin + changes.positions()[i]);
    run_begin += kRunElements;
  }
}

Result<std::unique_ptr<Sink>> make_trl_sink(const std::filesystem::path& folder,
                                            const ExportOptions& options);
Result<std::unique_ptr<Sink>> make_slime_sink(Repository& repository,
                                              const std::filesystem::path& folder,
                                              const ExportOptions& options);

}  // namespace siltstone
