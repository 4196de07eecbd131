#include "siltstone/interchange.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "calls.h"
#include "module.h"

namespace siltstone::python {
namespace {

using nb::literals::operator""_a;

Layout find_layout(const std::string& name) {
  for (const Layout layout : kLayouts) {
    if (layout_name(layout) == name) return layout;
  }
  throw Failure{{Code::kInvalidArgument, "there is no layout '" + name + "': trl or slime"}};
}

ImportReport import_from(Repository& repository, const std::string& folder,
                         const std::string& branch, const std::optional<std::string>& layout,
                         const std::string& base, bool unchecked, bool momentum, unsigned threads,
                         uint64_t memory_bytes, const nb::object& progress) {
  ImportOptions options;
  if (layout) options.layout = find_layout(*layout);
  options.base = base;
  options.unchecked = unchecked;
  options.publish.branch = branch;
  options.publish.momentum = momentum;
  options.publish.threads = threads;
  options.publish.memory_bytes = memory_bytes;
  return call(progress, [&](const Progress& meter) {
    options.publish.progress = meter;
    return import_versions(repository, folder, options);
  });
}

ExportReport export_to(Repository& repository, const std::string& range, const std::string& folder,
                       const std::string& layout, const std::string& encoding, unsigned threads,
                       uint64_t memory_bytes, const nb::object& progress) {
  ExportOptions options;
  options.layout = find_layout(layout);
  options.encoding = encoding;
  options.threads = threads;
  options.memory_bytes = memory_bytes;
  return call(progress, [&](const Progress& meter) {
    options.progress = meter;
    return export_versions(repository, range, folder, options);
  });
}

}  // namespace

void bind_interchange(nb::module_& module) {
  nb::class_<ImportReport>(module, "ImportReport", "What an import did.")
      .def_prop_ro(
          "layout", [](const ImportReport& r) { return std::string(layout_name(r.layout)); },
          "'trl' or 'slime'.")
      .def_ro("versions", &ImportReport::versions, "How many it published.")
      .def_ro("head", &ImportReport::head, "The branch's newest Version, or None.")
      .def_ro("bytes_written", &ImportReport::bytes_written)
      .def_ro("skipped", &ImportReport::skipped, "What was left out, with the reason.")
      .def_ro("pending", &ImportReport::pending,
              "The newest version, if its writer is not done; else empty.")
      .def_ro("seconds", &ImportReport::seconds);
  nb::class_<ExportReport>(module, "ExportReport", "What an export did.")
      .def_ro("versions", &ExportReport::versions, "How many it wrote.")
      .def_ro("present", &ExportReport::present, "How many the folder held already.")
      .def_ro("bytes_written", &ExportReport::bytes_written)
      .def_ro("seconds", &ExportReport::seconds);
  module.def("import_from", &import_from, "repository"_a, "folder"_a, "branch"_a, "layout"_a.none(),
             "base"_a, "unchecked"_a, "momentum"_a, "threads"_a, "memory_bytes"_a,
             "progress"_a.none());
  module.def("export_to", &export_to, "repository"_a, "range"_a, "folder"_a, "layout"_a,
             "encoding"_a, "threads"_a, "memory_bytes"_a, "progress"_a.none());
}

}  // namespace siltstone::python
