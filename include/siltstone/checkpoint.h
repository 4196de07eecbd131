// A Checkpoint is an ordered set of named tensors, read-only: a safetensors file, a Hugging Face
// model folder, or live memory.
//
// Ownership: open_checkpoint holds file descriptors until destroyed; view_memory borrows the
// caller's bytes, which must outlive it. Threads: const methods may be called from many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

// Where a checkpoint's tensors lie inside one safetensors file. `header` holds the exact bytes of
// the JSON header, spaces included, so that the file can be written again byte for byte.
struct WeightFile {
  struct Entry {
    size_t tensor;          // index into Checkpoint::tensors()
    uint64_t offset_bytes;  // from the start of the file
  };
  std::string path;  // relative, '/'-separated
  std::string header;
  uint64_t size_bytes = 0;
  std::vector<Entry> entries;  // by ascending offset; together they fill the data region
};

// A small file that travels with the weights: config, tokenizer, licence.
struct CompanionFile {
  std::string path;  // relative, '/'-separated
  uint64_t size_bytes = 0;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // Sorted by name (bytes).
  virtual std::span<const TensorInfo> tensors() const = 0;

  // Reads out.size() bytes of tensor `index` from `offset_bytes`. kIo or kCorrupt when the file has
  // become shorter.
  virtual Status read(size_t index, uint64_t offset_bytes, std::span<std::byte> out) const = 0;

  // The tensor's bytes if they already lie in memory, else an empty span.
  virtual std::span<const std::byte> resident(size_t index) const = 0;

  // The fp32 words of a tensor that is published as BF16 (ViewOptions::f32_as_bf16): contiguous,
  // twice size_bytes. Empty for every other tensor; resident() is empty where this is not.
  virtual std::span<const std::byte> masters(size_t /*index*/) const { return {}; }

  // Never empty: a checkpoint in memory describes the one file it would be saved as.
  virtual std::span<const WeightFile> files() const = 0;

  virtual std::span<const CompanionFile> companions() const = 0;
  virtual Result<std::string> read_companion(size_t index) const = 0;

  // Files of the folder that are neither weights nor companions (optimizer states, other formats,
  // too large), with the reason: for people.
  virtual std::span<const std::string> skipped() const = 0;

  // The folder that the paths of files() are relative to; empty for memory.
  virtual std::filesystem::path root() const = 0;

  // kConflict if a weight file was written to since it was opened: what read() gave may be torn
  // between two states. Ask after the last read, before the bytes are relied upon. Caller memory
  // cannot be watched: it always answers ok.
  virtual Status check_unchanged() const { return {}; }
};

// A single .safetensors file, or a folder with model.safetensors or with shards and their
// *.safetensors.index.json. Strict: docs/format/checkpoint.md lists every way a file can be
// refused.
Result<std::unique_ptr<Checkpoint>> open_checkpoint(const std::filesystem::path& file_or_folder);

struct ViewOptions {
  // Publish every F32 tensor as BF16: for a trainer whose fp32 master weights are what it holds and
  // whose bf16 weights are what others run. tensors() describes BF16, and read() rounds the words
  // asked for: to nearest, ties to even; subnormals are kept; a NaN keeps its sign and the top
  // 7 bits of its mantissa, the first of them set: it is quiet. No bf16 copy of a tensor is made;
  // publish rounds in the pass that compares. Tensors of other dtypes are published as they are.
  bool f32_as_bf16 = false;
  // Small files that travel with the weights (config.json, a tokenizer), by relative path: what a
  // checkout puts beside them, so that loaders find a whole model folder. Copied.
  std::map<std::string, std::string> companions = {};
};

// Live tensors of any dtype and of rank 0 to 16, row-major. Their bytes must not change while a
// call reads them; caller memory cannot be watched. kInvalidArgument for anything that no
// safetensors file could hold (a name given twice, a size that is not the shape's) and for a view
// that is not on Device::kCpu.
Result<std::unique_ptr<Checkpoint>> view_memory(std::vector<TensorView> tensors,
                                                const ViewOptions& options = {});

}  // namespace siltstone
