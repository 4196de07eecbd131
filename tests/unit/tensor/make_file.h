// Small safetensors files for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tensor/safetensors.h"

namespace siltstone {

// A file of U8 tensors, back to back in the given order.
inline std::string make_file(const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::vector<TensorInfo> infos;
  std::string data;
  for (const auto& [name, bytes] : tensors) {
    infos.push_back({name, DType::kU8, {static_cast<int64_t>(bytes.size())}, bytes.size()});
    data += bytes;
  }
  return make_safetensors_prefix(infos, {}, 8) + data;
}

}  // namespace siltstone
