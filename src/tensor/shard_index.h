// The index of a sharded model folder: which file holds which tensor.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "siltstone/checkpoint.h"
#include "siltstone/result.h"
#include "siltstone/tensor.h"

namespace siltstone {

// weight_map of a *.safetensors.index.json: tensor name to file name. What else the index holds is
// for other programs. Every file name is checked: one clean component that ends in .safetensors.
Result<std::map<std::string, std::string>> parse_shard_index(std::string_view json);

// The index must name exactly the tensors of `files`, each in the file that holds it. `tensors` is
// what the entries of `files` count in.
Status check_shard_index(const std::map<std::string, std::string>& weight_map,
                         std::span<const WeightFile> files, std::span<const TensorInfo> tensors);

}  // namespace siltstone
