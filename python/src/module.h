// The parts of the module _core, one function per file.
#pragma once

#include <nanobind/nanobind.h>

namespace siltstone::python {

void bind_versions(nanobind::module_& module);
void bind_repository(nanobind::module_& module);
void bind_replica(nanobind::module_& module);
void bind_interchange(nanobind::module_& module);

}  // namespace siltstone::python
