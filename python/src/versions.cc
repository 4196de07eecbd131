// Plain values that calls return.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "calls.h"
#include "module.h"
#include "siltstone/replica.h"
#include "siltstone/repository.h"

namespace siltstone::python {
namespace {

std::string_view kind_name(ArtifactKind kind) {
  return kind == ArtifactKind::kDelta ? "delta" : "anchor";
}

std::string describe(const Version& version) {
  std::string text = "<Version " + version.id.name();
  if (version.step) text += ", step " + std::to_string(*version.step);
  return text + ", root " + version.root.substr(0, 12) + ">";
}

void bind_version(nb::module_& module) {
  nb::class_<ArtifactInfo>(module, "Artifact", "Bytes from which a version can be rebuilt.")
      .def_prop_ro(
          "kind", [](const ArtifactInfo& a) { return std::string(kind_name(a.kind)); },
          "'anchor' (all of it) or 'delta' (from its parent's state).")
      .def_ro("size_bytes", &ArtifactInfo::bytes)
      .def_ro("changed_elements", &ArtifactInfo::changed_elements)
      .def_ro("objects", &ArtifactInfo::objects)
      .def_ro("packed", &ArtifactInfo::packed);

  nb::class_<Version>(module, "Version",
                      "One immutable commit of a branch. Versions compare equal if they are the "
                      "same commit; `root` tells whether weights are equal.")
      .def_prop_ro(
          "name", [](const Version& v) { return v.id.name(); }, "'main@3'.")
      .def_prop_ro("branch", [](const Version& v) { return v.id.branch; })
      .def_prop_ro(
          "seq", [](const Version& v) { return v.id.seq; }, "Position on its branch, from 0.")
      .def_prop_ro(
          "commit_hash", [](const Version& v) { return v.id.commit_hash; },
          "SHA-256 of the commit's bytes, hexadecimal.")
      .def_prop_ro(
          "parent",
          [](const Version& v) {
            return v.parent ? std::optional(v.parent->name()) : std::nullopt;
          },
          "Name of the version before, or None.")
      .def_ro("root", &Version::root, "Digest of every tensor's name, dtype, shape and bytes.")
      .def_ro("step", &Version::step, "The trainer's own count, or None.")
      .def_ro("message", &Version::message)
      .def_ro("time", &Version::time, "UTC, ISO 8601; for display alone.")
      .def_ro("epoch", &Version::epoch, "Rises when another writer takes the branch over.")
      .def_ro("fence", &Version::fence, "Made to take the branch over; the state is the parent's.")
      .def_ro("artifacts", &Version::artifacts)
      .def(
          "__eq__",
          [](const Version& v, const nb::object& other) {
            return nb::isinstance<Version>(other) && nb::cast<const Version&>(other).id == v.id;
          },
          nb::arg("other").none())
      .def("__hash__", [](const Version& v) { return std::hash<std::string>()(v.id.commit_hash); })
      .def("__repr__", &describe);
}

void bind_reports(nb::module_& module) {
  nb::class_<PublishReport>(module, "PublishReport", "What a publish did.")
      .def_ro("version", &PublishReport::version)
      .def_prop_ro(
          "kind", [](const PublishReport& r) { return std::string(kind_name(r.kind)); },
          "'delta' when there is a delta, even beside an anchor.")
      .def_ro("bytes_written", &PublishReport::bytes_written, "Of all objects it created.")
      .def_ro("section_bytes", &PublishReport::section_bytes)
      .def_ro("changed_elements", &PublishReport::changed_elements)
      .def_ro("total_elements", &PublishReport::total_elements)
      .def_ro("total_bytes", &PublishReport::total_bytes, "Of the full model's tensors.")
      .def_ro("base", &PublishReport::base, "Where the previous state was read from.")
      .def_ro("seconds", &PublishReport::seconds)
      .def("__repr__", [](const PublishReport& r) {
        return "<PublishReport " + r.version.id.name() + ", " + std::string(kind_name(r.kind)) +
               " of " + std::to_string(r.bytes_written) + " bytes>";
      });
  nb::class_<CheckoutReport>(module, "CheckoutReport", "What a checkout did.")
      .def_ro("version", &CheckoutReport::version)
      .def_ro("bytes_fetched", &CheckoutReport::bytes_fetched)
      .def_ro("bytes_written", &CheckoutReport::bytes_written)
      .def_ro("files", &CheckoutReport::files)
      .def_ro("seconds", &CheckoutReport::seconds);
  nb::class_<LoadReport>(module, "LoadReport", "What a load did.")
      .def_ro("version", &LoadReport::version)
      .def_ro("bytes_fetched", &LoadReport::bytes_fetched)
      .def_ro("seconds", &LoadReport::seconds);
  nb::class_<VerifyReport>(module, "VerifyReport", "What a verification found.")
      .def_ro("versions", &VerifyReport::versions)
      .def_ro("objects", &VerifyReport::objects)
      .def_ro("bytes_read", &VerifyReport::bytes)
      .def_ro("problems", &VerifyReport::problems, "Empty: everything is as it should be.");
  nb::class_<TensorDiff>(module, "TensorDiff", "How one tensor differs.")
      .def_ro("name", &TensorDiff::name)
      .def_ro("change", &TensorDiff::change, "'changed', 'added', 'removed' or 'retyped'.")
      .def_ro("elements", &TensorDiff::elements)
      .def_ro("changed_elements", &TensorDiff::changed_elements);
  nb::class_<DiffReport>(module, "DiffReport", "How two versions differ.")
      .def_ro("from_root", &DiffReport::from_root)
      .def_ro("to_root", &DiffReport::to_root)
      .def_ro("total_elements", &DiffReport::total_elements)
      .def_ro("changed_elements", &DiffReport::changed_elements)
      .def_ro("tensors", &DiffReport::tensors, "Those that differ, by name.");
  nb::class_<CommitReport>(module, "CommitReport", "What a commit of a replica did.")
      .def_prop_ro(
          "outcome", [](const CommitReport& r) { return std::string(outcome_name(r.outcome)); },
          "'APPLIED'; anything else was raised instead.")
      .def_ro("version", &CommitReport::version)
      .def_ro("seconds", &CommitReport::seconds, "How long readers had to wait.");
  nb::class_<FollowStep>(module, "FollowStep", "One version that a follower applied.")
      .def_prop_ro(
          "previous",
          [](const FollowStep& s) { return s.from ? std::optional(s.from->name()) : std::nullopt; },
          "Name of the version before, or None.")
      .def_prop_ro("version", [](const FollowStep& s) { return s.commit.version; })
      .def_ro("bytes_fetched", &FollowStep::bytes_fetched)
      .def_ro("stage_seconds", &FollowStep::stage_seconds)
      .def_prop_ro("commit_seconds", [](const FollowStep& s) { return s.commit.seconds; });
}

}  // namespace

void bind_versions(nb::module_& module) {
  bind_version(module);
  bind_reports(module);
}

}  // namespace siltstone::python
