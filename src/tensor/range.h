// Bounds of a read inside a tensor.
#pragma once

#include <string>

#include "siltstone/result.h"
#include "siltstone/tensor.h"
#include "tensor/text.h"

namespace siltstone {

// kInvalidArgument unless [offset, offset + length) lies inside the tensor.
inline Status check_range(const TensorInfo& tensor, uint64_t offset_bytes, uint64_t length_bytes) {
  if (offset_bytes <= tensor.size_bytes && length_bytes <= tensor.size_bytes - offset_bytes) {
    return {};
  }
  return Error{Code::kInvalidArgument, "cannot read " + std::to_string(length_bytes) +
                                           " bytes at " + std::to_string(offset_bytes) +
                                           " of tensor " + quote(tensor.name) + ", which has " +
                                           std::to_string(tensor.size_bytes)};
}

}  // namespace siltstone
