#include "tensors.h"

#include <nanobind/stl/string.h>

#include <string>

#include "calls.h"

namespace siltstone::python {
namespace {

Failure refused(Code code, const std::string& name, const std::string& problem) {
  return {{code, "tensor '" + name + "' " + problem}};
}

template <class Array>
bool is_contiguous(const Array& array) {
  if (array.size() == 0) return true;
  int64_t expected = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) != 1 && array.stride(i) != expected) return false;
    expected *= static_cast<int64_t>(array.shape(i));
  }
  return true;
}

template <class Array, class View>
void append(const nb::handle& name, const nb::handle& dtype_text, const nb::handle& exported,
            std::vector<Array>* arrays, std::vector<View>* views) {
  View view;
  view.name = nb::cast<std::string>(name);
  const auto dtype_name = nb::cast<std::string>(dtype_text);
  const DTypeInfo* dtype = find_dtype(dtype_name);
  if (dtype == nullptr)
    throw refused(Code::kInvalidArgument, view.name, "has the unknown dtype " + dtype_name);
  view.dtype = dtype->dtype;
  Array array;
  if (!nb::try_cast<Array>(exported, array)) {
    PyErr_Clear();
    throw refused(Code::kInvalidArgument, view.name,
                  "cannot be had through DLPack (read-only memory cannot be written to)");
  }
  if (array.device_type() != nb::device::cpu::value)
    throw refused(Code::kUnsupported, view.name, "is not in host memory");
  if (array.itemsize() != dtype->word_bytes)
    throw refused(Code::kInvalidArgument, view.name,
                  "has elements of " + std::to_string(array.itemsize()) + " bytes, " + dtype_name +
                      " has " + std::to_string(dtype->word_bytes));
  if (!is_contiguous(array))
    throw refused(Code::kInvalidArgument, view.name, "is not contiguous in row-major order");
  for (size_t i = 0; i < array.ndim(); ++i)
    view.shape.push_back(static_cast<int64_t>(array.shape(i)));
  using Bytes = decltype(view.bytes);
  using Byte = typename Bytes::element_type;
  view.bytes = Bytes(static_cast<Byte*>(array.data()), array.nbytes());
  arrays->push_back(std::move(array));
  views->push_back(std::move(view));
}

template <class Tensors>
Tensors collect(const nb::list& names, const nb::list& dtypes, const nb::list& arrays) {
  const size_t count = nb::len(names);
  if (nb::len(dtypes) != count || nb::len(arrays) != count)
    throw Failure{{Code::kInvalidArgument, "names, dtypes and arrays must be as many"}};
  Tensors tensors;
  tensors.arrays.reserve(count);
  tensors.views.reserve(count);
  for (size_t i = 0; i < count; ++i)
    append(names[i], dtypes[i], arrays[i], &tensors.arrays, &tensors.views);
  return tensors;
}

}  // namespace

ReadTensors read_tensors(const nb::list& names, const nb::list& dtypes, const nb::list& arrays) {
  return collect<ReadTensors>(names, dtypes, arrays);
}
WriteTensors write_tensors(const nb::list& names, const nb::list& dtypes, const nb::list& arrays) {
  return collect<WriteTensors>(names, dtypes, arrays);
}

}  // namespace siltstone::python
