#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "calls.h"
#include "module.h"
#include "siltstone/checkpoint.h"
#include "siltstone/repository.h"
#include "tensors.h"

namespace siltstone::python {
namespace {

using nb::literals::operator""_a;

using Shared = std::shared_ptr<Repository>;
using Companions = std::map<std::string, nb::bytes>;

Shared with_store(
    const std::string& url, const StoreOptions& options,
    const std::function<Result<std::unique_ptr<Repository>>(const std::shared_ptr<Store>&)>& open) {
  return call(nb::none(), [&](const Progress&) -> Result<Shared> {
    Result<std::shared_ptr<Store>> store = open_store(url, options);
    if (!store) return std::move(store).error();
    Result<std::unique_ptr<Repository>> repository = open(*store);
    if (!repository) return std::move(repository).error();
    return Shared(*std::move(repository));
  });
}

StoreOptions store_options(unsigned transfers, uint64_t bytes_per_second, double total_seconds,
                           const std::string& relay) {
  StoreOptions options;
  options.relay = relay;
  options.transfers = transfers;
  options.bytes_per_second = bytes_per_second;
  options.total_seconds = total_seconds;
  return options;
}

Shared open_repository(const std::string& url, bool create, unsigned transfers,
                       uint64_t bytes_per_second, double total_seconds, const std::string& relay) {
  const StoreOptions options = store_options(transfers, bytes_per_second, total_seconds, relay);
  return with_store(url, options, [&](const std::shared_ptr<Store>& store) {
    const auto is = [](const Result<std::unique_ptr<Repository>>& result, Code code) {
      return !result && result.error().code == code;
    };
    Result<std::unique_ptr<Repository>> repository = Repository::open(store);
    if (create && is(repository, Code::kNotFound)) {
      repository = Repository::init(store);
      // Another process made it in between: the ranks of a training run start at the same time.
      if (is(repository, Code::kConflict)) repository = Repository::open(store);
    }
    return repository;
  });
}

Shared init_repository(const std::string& url, bool single_writer) {
  return with_store(url, {}, [&](const std::shared_ptr<Store>& store) {
    return Repository::init(store, {.single_writer = single_writer});
  });
}

// What Python gives publish, beside the checkpoint.
struct Request {
  PublishOptions options;

  explicit Request(const nb::kwargs& given) {
    const auto take = [&given](const char* name, auto* to) {
      if (given.contains(name) && !given[name].is_none())
        *to = nb::cast<std::remove_pointer_t<decltype(to)>>(given[name]);
    };
    std::string effort;
    std::string cache;
    take("branch", &options.branch);
    take("message", &options.message);
    take("step", &options.step);
    take("parent", &options.parent);
    take("threads", &options.threads);
    take("memory_bytes", &options.memory_bytes);
    take("codec", &options.codec);
    take("effort", &effort);
    take("momentum", &options.momentum);
    take("pack_anchors", &options.pack_anchors);
    take("cache", &cache);
    options.cache = cache;
    if (effort.empty()) return;
    const auto found = std::ranges::find(kEfforts, effort, effort_name);
    if (found == kEfforts.end())
      throw Failure{
          {Code::kInvalidArgument, "there is no effort '" + effort + "': fast, default or max"}};
    options.effort = *found;
  }
};

PublishReport publish(Repository& repository, const Checkpoint& next, PublishOptions options,
                      const nb::object& progress) {
  return call(progress, [&](const Progress& meter) {
    options.progress = meter;
    return repository.publish(next, options);
  });
}

PublishReport publish_tensors(Repository& repository, const nb::list& names, const nb::list& dtypes,
                              const nb::list& arrays, bool f32_as_bf16,
                              const Companions& companions, RetainedBase* retained,
                              const nb::object& progress, const nb::kwargs& given) {
  const Request request(given);
  ReadTensors read = read_tensors(names, dtypes, arrays);
  ViewOptions view;
  view.f32_as_bf16 = f32_as_bf16;
  for (const auto& [path, content] : companions)
    view.companions[path] = std::string(content.c_str(), content.size());
  const auto checkpoint = unwrap(view_memory(std::move(read.views), view));
  PublishOptions options = request.options;
  options.retained = retained;
  return publish(repository, *checkpoint, options, progress);
}

PublishReport publish_files(Repository& repository, const std::string& path,
                            const nb::object& progress, const nb::kwargs& given) {
  const Request request(given);
  const auto checkpoint = unwrap(open_checkpoint(path));
  return publish(repository, *checkpoint, request.options, progress);
}

nb::list tensors_of(Repository& repository, const Version& version) {
  const std::vector<TensorInfo> infos =
      call(nb::none(), [&](const Progress&) { return repository.tensors(version); });
  nb::list out;
  for (const TensorInfo& info : infos)
    out.append(nb::make_tuple(info.name, std::string(dtype_info(info.dtype).name), info.shape,
                              info.size_bytes));
  return out;
}

std::vector<std::string> digests_of(Repository& repository, const Version& version) {
  return call(nb::none(), [&](const Progress&) { return repository.digests(version); });
}

std::string digest_of(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& array) {
  const std::span bytes(static_cast<const std::byte*>(array.data()), array.nbytes());
  const nb::gil_scoped_release release;
  return tensor_digest(bytes);
}

LoadReport load(Repository& repository, const Version& version, const nb::list& names,
                const nb::list& dtypes, const nb::list& arrays, bool some, unsigned threads,
                uint64_t memory_bytes, const nb::object& progress) {
  const WriteTensors write = write_tensors(names, dtypes, arrays);
  return call(progress, [&](const Progress& meter) {
    return repository.load(version, write.views, {some, threads, memory_bytes, meter});
  });
}

CheckoutReport checkout(Repository& repository, const Version& version, const std::string& folder,
                        bool replace, unsigned threads, uint64_t memory_bytes,
                        const nb::object& progress) {
  return call(progress, [&](const Progress& meter) {
    return repository.checkout(version, folder, {replace, threads, memory_bytes, meter});
  });
}

VerifyReport verify(Repository& repository, const std::optional<std::string>& version, bool data,
                    unsigned threads, uint64_t memory_bytes, const nb::object& progress) {
  return call(progress, [&](const Progress& meter) {
    return repository.verify({version, data, threads, memory_bytes, meter});
  });
}

DiffReport diff(Repository& repository, const Version& from, const Version& to, unsigned threads,
                const nb::object& progress) {
  return call(progress, [&](const Progress& meter) {
    return repository.diff(from, to, {threads, meter});
  });
}

// For methods that take nothing but a few names.
template <class Fn>
auto quick(Fn fn) {
  return call(nb::none(), [&fn](const Progress&) { return fn(); });
}

nb::dict dict_of(const std::vector<RefInfo>& refs) {
  nb::dict out;
  for (const RefInfo& ref : refs) out[ref.name.c_str()] = ref.target.name();
  return out;
}

}  // namespace

void bind_repository(nb::module_& module) {
  module.def("tensor_digest", &digest_of, "array"_a);
  nb::class_<RetainedBase>(module, "RetainedBase",
                           "A copy of the last published state in the publisher's memory.")
      .def(nb::init<>())
      .def_prop_ro("version",
                   [](const RetainedBase& base) {
                     return base.version() ? std::optional(base.version()->name()) : std::nullopt;
                   })
      .def("size_bytes", [](const RetainedBase& base, const std::string& tensor) {
        return base.bytes(tensor).size();
      });

  module.def("open_repository", &open_repository, "url"_a, "create"_a, "transfers"_a,
             "bytes_per_second"_a, "total_seconds"_a, "relay"_a);
  module.def("init_repository", &init_repository, "url"_a, "single_writer"_a);
  module.def("default_cache", [] { return default_cache().string(); });

  nb::class_<Repository>(module, "Repository")
      .def_prop_ro("url", [](Repository& r) { return r.info().url; })
      .def_prop_ro("repo_id", [](Repository& r) { return r.info().repo_id; })
      .def_prop_ro("single_writer", [](Repository& r) { return r.info().single_writer; })
      .def("head", [](Repository& r,
                      const std::string& branch) { return quick([&] { return r.head(branch); }); })
      .def("resolve", [](Repository& r,
                         const std::string& ref) { return quick([&] { return r.resolve(ref); }); })
      .def("log", [](Repository& r, const std::string& ref,
                     uint64_t limit) { return quick([&] { return r.log(ref, limit); }); })
      .def("fence",
           [](Repository& r, const std::string& branch) {
             return quick([&] { return r.fence(branch); });
           })
      .def("tag", [](Repository& r, const std::string& name,
                     const Version& version) { quick([&] { return r.tag(name, version); }); })
      .def("tags", [](Repository& r) { return dict_of(quick([&] { return r.tags(); })); })
      .def("branch", [](Repository& r, const std::string& name,
                        const Version& version) { quick([&] { return r.branch(name, version); }); })
      .def("branches", [](Repository& r) { return dict_of(quick([&] { return r.branches(); })); })
      .def("tensors", &tensors_of, "version"_a)
      .def("digests", &digests_of, "version"_a)
      .def("publish_tensors", &publish_tensors, "names"_a, "dtypes"_a, "arrays"_a, "f32_as_bf16"_a,
           "companions"_a, "retained"_a.none(), "progress"_a.none(), "options"_a)
      .def("publish_files", &publish_files, "path"_a, "progress"_a.none(), "options"_a)
      .def("load", &load, "version"_a, "names"_a, "dtypes"_a, "arrays"_a, "some"_a, "threads"_a,
           "memory_bytes"_a, "progress"_a.none())
      .def("checkout", &checkout, "version"_a, "folder"_a, "replace"_a, "threads"_a,
           "memory_bytes"_a, "progress"_a.none())
      .def("diff", &diff, "from_"_a, "to"_a, "threads"_a, "progress"_a.none())
      .def("verify", &verify, "version"_a.none(), "data"_a, "threads"_a, "memory_bytes"_a,
           "progress"_a.none());
}

}  // namespace siltstone::python
