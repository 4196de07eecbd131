#include "module.h"

#include "calls.h"

NB_MODULE(_core, module) {
  module.doc() = "The C++ library behind siltstone's Python classes; use those.";
  // Programs end with replicas and publishers in global variables; that is no leak.
  nanobind::set_leak_warnings(false);
  siltstone::python::register_failures();
  siltstone::python::bind_versions(module);
  siltstone::python::bind_repository(module);
  siltstone::python::bind_replica(module);
  siltstone::python::bind_interchange(module);
}
