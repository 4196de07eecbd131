// Tensors of Python as views: anything that exports itself through DLPack, without a copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "siltstone/tensor.h"

namespace siltstone::python {

namespace nb = nanobind;

// Views and what keeps them alive; destroyed with the GIL held.
struct ReadTensors {
  std::vector<nb::ndarray<nb::ro>> arrays;
  std::vector<TensorView> views;
};
struct WriteTensors {
  std::vector<nb::ndarray<>> arrays;
  std::vector<MutTensorView> views;
};

// Parallel lists: names, dtypes as safetensors spells them, arrays that are C-contiguous, in host
// memory, and of words as large as the dtype's. Throws Failure otherwise.
ReadTensors read_tensors(const nb::list& names, const nb::list& dtypes, const nb::list& arrays);
WriteTensors write_tensors(const nb::list& names, const nb::list& dtypes, const nb::list& arrays);

}  // namespace siltstone::python
