// What an import reads: the versions of a foreign folder, one after the other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "interchange/model_state.h"
#include "siltstone/interchange.h"

namespace siltstone {

struct SourceOptions {
  bool unchecked = false;
  unsigned threads = 0;
};

class Source {
 public:
  virtual ~Source() = default;

  // Numbers of the versions whose writer is done, ascending.
  virtual const std::vector<uint64_t>& numbers() const = 0;
  // "deltas/step_000007.safetensors": for messages.
  virtual std::string name(uint64_t number) const = 0;
  // The newest version if its writer is not done, and why; else empty.
  virtual std::string pending() const { return {}; }

  // Whether the version needs no other one.
  virtual Result<bool> is_full(uint64_t number) const = 0;
  // Makes *state hold a full version, whatever it held; it may be null.
  virtual Status read(uint64_t number, std::unique_ptr<ModelState>* state) const = 0;
  // Moves `state` from version `before` to `number`, proven as far as the layout allows. Before
  // anything is changed: kMismatch if the version builds on another one.
  virtual Status apply(uint64_t number, uint64_t before, ModelState* state) const = 0;
};

Result<std::unique_ptr<Source>> open_trl(const std::filesystem::path& folder,
                                         const SourceOptions& options);
Result<std::unique_ptr<Source>> open_slime(const std::filesystem::path& folder,
                                           const SourceOptions& options);

// kCorrupt unless the state's digest is `root`, which an export of ours noted.
Status prove_root(const ModelState& state, const std::string& root, unsigned threads);

// Whether the folder holds something of the layout's.
bool is_trl(const std::filesystem::path& folder);
bool is_slime(const std::filesystem::path& folder);

}  // namespace siltstone
