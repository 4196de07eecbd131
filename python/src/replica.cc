#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>

#include "calls.h"
#include "module.h"
#include "siltstone/replica.h"
#include "tensors.h"

namespace siltstone::python {
namespace {

using nb::literals::operator""_a;

// A change that waits to be applied.
struct PyStaged {
  std::unique_ptr<Staged> staged;  // empty once it was committed or discarded

  const Staged& get() const {
    if (!staged)
      throw Failure{{Code::kInvalidArgument, "this change was committed or discarded already"}};
    return *staged;
  }
};

// A Replica, the Python memory under it, and the rule that one call runs at a time.
class PyReplica {
 public:
  PyReplica(std::unique_ptr<Replica> replica, std::vector<nb::ndarray<>> arrays)
      : replica_(std::move(replica)), arrays_(std::move(arrays)) {}

  std::unique_lock<std::mutex> claim() {
    std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock)
      throw Failure{{Code::kInvalidArgument,
                     "the replica is in use by another call; a follower that was started for it "
                     "has to be stopped first"}};
    return lock;
  }
  Replica& replica() { return *replica_; }

 private:
  std::unique_ptr<Replica> replica_;
  std::vector<nb::ndarray<>> arrays_;
  std::mutex busy_;
};

std::unique_ptr<PyReplica> adopt(const nb::list& names, const nb::list& dtypes,
                                 const nb::list& arrays, const Version& at) {
  WriteTensors write = write_tensors(names, dtypes, arrays);
  auto replica =
      call(nb::none(), [&](const Progress&) { return Replica::adopt(std::move(write.views), at); });
  return std::make_unique<PyReplica>(std::move(replica), std::move(write.arrays));
}

using TileRows = nb::ndarray<const int64_t, nb::shape<-1, 8>, nb::c_contig, nb::device::cpu>;

// Negative numbers become huge ones, which no tensor has room for.
SlotTile tile_of(const int64_t* row) {
  const auto field = [row](size_t i) { return static_cast<uint64_t>(row[i]); };
  return {.source_begin = field(0),
          .destination_begin = field(1),
          .rows = field(2),
          .columns = field(3),
          .source_row_stride = field(4),
          .source_column_stride = field(5),
          .destination_row_stride = field(6),
          .destination_column_stride = field(7)};
}

struct PySlots {
  std::vector<Slot> slots;
  std::vector<nb::ndarray<>> arrays;
};

// `slots`: tuples of the tensor's name, the place of its memory among `destinations`, which are
// arrays of bytes, and its tiles, whose rows have the fields of SlotTile in their order.
PySlots slots_of(const nb::list& slots, const nb::list& destinations) {
  nb::list names;
  nb::list dtypes;
  for (size_t i = 0; i < nb::len(destinations); ++i) {
    names.append("destination " + std::to_string(i));
    dtypes.append("U8");
  }
  WriteTensors memory = write_tensors(names, dtypes, destinations);
  PySlots out;
  out.slots.reserve(nb::len(slots));
  for (const nb::handle& item : slots) {
    const auto slot = nb::cast<nb::tuple>(item);
    const auto destination = nb::cast<size_t>(slot[1]);
    if (destination >= memory.views.size())
      throw Failure{{Code::kInvalidArgument, "a slot names a destination that is not given"}};
    out.slots.push_back({nb::cast<std::string>(slot[0]), memory.views[destination].bytes, {}});
    const auto tiles = nb::cast<TileRows>(slot[2]);
    for (size_t row = 0; row < tiles.shape(0); ++row)
      out.slots.back().tiles.push_back(tile_of(tiles.data() + row * 8));
  }
  out.arrays = std::move(memory.arrays);
  return out;
}

std::unique_ptr<PyReplica> adopt_slots(Repository& repository, const Version& at,
                                       const nb::list& slots, const nb::list& destinations) {
  PySlots memory = slots_of(slots, destinations);
  auto replica = call(nb::none(), [&](const Progress&) -> Result<std::unique_ptr<Replica>> {
    Result<std::vector<TensorInfo>> tensors = repository.tensors(at);
    if (!tensors) return std::move(tensors).error();
    return Replica::adopt(*std::move(tensors), std::move(memory.slots), at);
  });
  return std::make_unique<PyReplica>(std::move(replica), std::move(memory.arrays));
}

std::unique_ptr<PyReplica> adopt_share(Repository& repository, const Version& at,
                                       const nb::list& slots, const nb::list& destinations) {
  PySlots memory = slots_of(slots, destinations);
  auto replica = call(nb::none(), [&](const Progress&) {
    return Replica::adopt_share(repository, std::move(memory.slots), at);
  });
  return std::make_unique<PyReplica>(std::move(replica), std::move(memory.arrays));
}

// A view of the bytes, which it owns.
nb::ndarray<nb::memview, uint8_t, nb::ndim<1>> changes_of(const PyStaged& staged) {
  auto bytes = std::make_unique<std::vector<std::byte>>(
      call(nb::none(), [&](const Progress&) { return staged.get().changes(); }));
  const size_t size = bytes->size();
  std::byte* data = bytes->data();
  const nb::capsule owner(bytes.release(), [](void* owned) noexcept {
    delete static_cast<std::vector<std::byte>*>(owned);
  });
  return {data, {size}, owner};
}

std::unique_ptr<PyReplica> open_folder(const std::string& folder, Repository& repository) {
  auto replica =
      call(nb::none(), [&](const Progress&) { return Replica::open(folder, repository); });
  return std::make_unique<PyReplica>(std::move(replica), std::vector<nb::ndarray<>>());
}

PyStaged stage(PyReplica& replica, Repository& repository, const Version& target, bool repair,
               unsigned threads, uint64_t memory_bytes, const nb::object& progress) {
  const auto lock = replica.claim();
  return {call(progress, [&](const Progress& meter) {
    return replica.replica().stage(repository, target, {repair, threads, memory_bytes, meter});
  })};
}

// Of a Replica or a Shard.
template <class Target>
CommitReport commit_to(Target& target, PyStaged& staged) {
  (void)staged.get();
  std::unique_ptr<Staged> change = std::move(staged.staged);
  CommitReport report;
  {
    const nb::gil_scoped_release release;
    report = target.commit(std::move(change));
  }
  if (!report.status) throw Failure{report.status.error()};
  return report;
}

CommitReport commit(PyReplica& replica, PyStaged& staged) {
  const auto lock = replica.claim();
  return commit_to(replica.replica(), staged);
}

// A Shard and the Python memory under it. One call at a time: its owner sees to that.
struct PyShard {
  std::unique_ptr<Shard> shard;
  std::vector<nb::ndarray<>> arrays;
};

// `names` and `copy`: tensors as bytes.
std::unique_ptr<PyShard> adopt_shard(Repository& repository, const Version& at,
                                     const nb::list& names, const nb::list& copy,
                                     const nb::list& slots, const nb::list& destinations) {
  nb::list dtypes;
  for (size_t i = 0; i < nb::len(names); ++i) dtypes.append("U8");
  WriteTensors whole = write_tensors(names, dtypes, copy);
  PySlots memory = slots_of(slots, destinations);
  auto shard = call(nb::none(), [&](const Progress&) {
    return Shard::adopt(repository, whole.views, std::move(memory.slots), at);
  });
  std::ranges::move(whole.arrays, std::back_inserter(memory.arrays));
  return std::make_unique<PyShard>(PyShard{std::move(shard), std::move(memory.arrays)});
}

PyStaged stage_shard(PyShard& shard,
                     const nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig>& changes,
                     const Version& target, unsigned threads, uint64_t memory_bytes) {
  const std::span bytes(reinterpret_cast<const std::byte*>(changes.data()), changes.size());
  StageOptions options;
  options.threads = threads;
  options.memory_bytes = memory_bytes;
  return {call(nb::none(),
               [&](const Progress&) { return shard.shard->stage(bytes, target, options); })};
}

struct StopFlag {
  std::atomic<bool> value{false};
};

// The commit that the caller's pause goes around. Python may keep it: it only works inside.
struct CommitNow {
  const std::function<CommitReport()>* commit = nullptr;
  std::optional<CommitReport> report;
};

// Runs follow() on the calling thread. What a callback raises ends it and is raised here.
class Follow {
 public:
  Follow(PyReplica& replica, Repository& repository, FollowOptions options, nb::object on_version,
         nb::object around_commit)
      : replica_(replica),
        repository_(repository),
        options_(std::move(options)),
        on_version_(std::move(on_version)),
        around_commit_(std::move(around_commit)) {}

  void run() {
    const auto lock = replica_.claim();
    if (!around_commit_.is_none()) {
      options_.around_commit = [this](const Staged& staged,
                                      const std::function<CommitReport()>& commit) {
        return pause(staged, commit);
      };
    }
    Status status;
    {
      const nb::gil_scoped_release release;
      status = follow(replica_.replica(), repository_, options_,
                      [this](const FollowStep& step) { return tell(step); });
    }
    if (raised_) std::rethrow_exception(raised_);
    const bool stopped = !status && status.error().code == Code::kCancelled && *options_.stop;
    if (!status && !stopped) throw Failure{status.error()};
  }

 private:
  Error keep_raised() {
    raised_ = std::current_exception();
    return {Code::kCancelled, "a callback raised"};
  }

  Status tell(const FollowStep& step) {
    if (on_version_.is_none()) return {};
    const nb::gil_scoped_acquire acquire;
    try {
      on_version_(step);
      return {};
    } catch (...) {
      return keep_raised();
    }
  }

  Result<CommitReport> pause(const Staged& staged, const std::function<CommitReport()>& commit) {
    const nb::gil_scoped_acquire acquire;
    const auto now = std::make_shared<CommitNow>();
    now->commit = &commit;
    try {
      around_commit_(staged.target(), now);
    } catch (...) {
      now->commit = nullptr;
      return keep_raised();
    }
    now->commit = nullptr;
    if (!now->report)
      return Error{Code::kInvalidArgument, "the function around the commit did not commit"};
    return *now->report;
  }

  PyReplica& replica_;
  Repository& repository_;
  FollowOptions options_;
  nb::object on_version_;
  nb::object around_commit_;
  std::exception_ptr raised_;
};

CommitReport commit_now(CommitNow& now) {
  if (now.commit == nullptr || now.report)
    throw Failure{{Code::kInvalidArgument, "this can be called once, and only inside the pause"}};
  const auto* commit = now.commit;
  {
    const nb::gil_scoped_release release;
    now.report = (*commit)();
  }
  if (!now.report->status) throw Failure{now.report->status.error()};
  return *now.report;
}

void run_follow(PyReplica& replica, Repository& repository, const std::string& branch,
                double interval_seconds, std::optional<uint64_t> until_seq, StopFlag& stop,
                bool repair, unsigned threads, uint64_t memory_bytes, nb::object on_version,
                nb::object around_commit) {
  FollowOptions options;
  options.branch = branch;
  options.interval_seconds = interval_seconds;
  options.until_seq = until_seq;
  options.stop = &stop.value;
  options.stage = {repair, threads, memory_bytes,
                   [&stop](uint64_t, uint64_t) { return !stop.value; }};
  Follow(replica, repository, options, std::move(on_version), std::move(around_commit)).run();
}

}  // namespace

void bind_replica(nb::module_& module) {
  nb::class_<PyStaged>(module, "Staged")
      .def_prop_ro("target", [](const PyStaged& s) { return s.get().target(); })
      .def_prop_ro("bytes_fetched", [](const PyStaged& s) { return s.get().bytes_fetched(); })
      .def_prop_ro("changed_elements", [](const PyStaged& s) { return s.get().changed_elements(); })
      .def_prop_ro("seconds", [](const PyStaged& s) { return s.get().seconds(); })
      .def("digests",
           [](const PyStaged& s) {
             nb::list out;
             for (const std::string& digest : s.get().digests()) out.append(digest);
             return out;
           })
      .def("changes", &changes_of)
      .def("discard", [](PyStaged& s) { s.staged.reset(); });

  nb::class_<StopFlag>(module, "StopFlag").def(nb::init<>()).def("set", [](StopFlag& flag) {
    flag.value = true;
  });
  nb::class_<CommitNow>(module, "CommitNow").def("__call__", &commit_now);

  nb::class_<PyReplica>(module, "Replica")
      .def_static("adopt", &adopt, "names"_a, "dtypes"_a, "arrays"_a, "at"_a)
      .def_static("adopt_slots", &adopt_slots, "repository"_a, "at"_a, "slots"_a, "destinations"_a)
      .def_static("adopt_share", &adopt_share, "repository"_a, "at"_a, "slots"_a, "destinations"_a)
      .def_static("open", &open_folder, "folder"_a, "repository"_a)
      .def_prop_ro("version", [](PyReplica& r) { return r.replica().version(); })
      .def("stage", &stage, "repository"_a, "target"_a, "repair"_a, "threads"_a, "memory_bytes"_a,
           "progress"_a.none())
      .def("commit", &commit, "staged"_a)
      .def("follow", &run_follow, "repository"_a, "branch"_a, "interval_seconds"_a,
           "until_seq"_a.none(), "stop"_a, "repair"_a, "threads"_a, "memory_bytes"_a,
           "on_version"_a.none(), "around_commit"_a.none());

  nb::class_<PyShard>(module, "Shard")
      .def_static("adopt", &adopt_shard, "repository"_a, "at"_a, "names"_a, "copy"_a, "slots"_a,
                  "destinations"_a)
      .def_prop_ro("version", [](PyShard& s) { return s.shard->version(); })
      .def("stage", &stage_shard, "changes"_a, "target"_a, "threads"_a, "memory_bytes"_a)
      .def(
          "commit", [](PyShard& s, PyStaged& staged) { return commit_to(*s.shard, staged); },
          "staged"_a);
}

}  // namespace siltstone::python
