// Compares the codecs on two checkpoints of one's own: what each would send, and how fast it is.
//
// Every piece that publishing would code is coded, decoded and compared with what it should be, on
// the calling thread, so speeds are per core. Blocking; memory is bounded by a few hundred MiB,
// whatever the model's size. Times are CPU time of the thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "siltstone/checkpoint.h"
#include "siltstone/repository.h"
#include "siltstone/result.h"

namespace siltstone {

struct CompareCodecsOptions {
  // Names of codecs, and of efforts: a codec chosen per section, as publish does with that effort.
  // Empty: all of both.
  std::vector<std::string> codecs;
  std::string tensors;  // a shell pattern their names match; empty: all
  // What came before `from`, for codec momentum, which is left out without it. Borrowed.
  const Checkpoint* earlier = nullptr;
  unsigned rounds = 3;  // times are medians of so many; at least 1
  Progress progress;
};

struct CodecResult {
  std::string name;            // of a codec or an effort
  uint64_t section_bytes = 0;  // of whole sections, headers included
  uint64_t sections = 0;
  // Which codecs the sections have. Of a codec that does not code some tensor's words, these
  // sections are coded with the default effort, and `refused_tensors` counts such tensors.
  std::vector<std::pair<std::string, uint64_t>> sections_by_codec;
  uint64_t refused_tensors = 0;
  double encode_seconds = 0;  // finding the changes included; digests are not
  double decode_seconds = 0;  // checking the sections included; applied to words in memory
};

struct CodecComparison {
  uint64_t tensors = 0;  // compared: those of the same name, dtype and shape
  uint64_t dense_bytes = 0;
  uint64_t elements = 0;
  uint64_t changed_elements = 0;
  std::vector<CodecResult> results;   // in order of CompareCodecsOptions::codecs
  std::vector<std::string> left_out;  // names of tensors that match, but not the other's
};

// kInvalidArgument if there is no such codec or no tensor to compare; kInternal if a codec does not
// give back exactly what it was given; kConflict if a file was written to meanwhile.
Result<CodecComparison> compare_codecs(const Checkpoint& from, const Checkpoint& to,
                                       const CompareCodecsOptions& options);

}  // namespace siltstone
