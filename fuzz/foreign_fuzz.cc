// Arbitrary bytes as the files of another layout: the first byte says which file the rest is - a
// delta of TRL's, a frames' file of slime's or its index - the others are as they should be. What
// is applied must change nothing but the words of the state.
#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "base/files.h"
#include "interchange/slime.h"
#include "interchange/source.h"
#include "tensor/safetensors.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFrames = "model-00000-of-00001.safetensors";
constexpr const char* kIndex =
    R"({"metadata":{"version":"000002","base_version":"000001","delta_encoding":"overwrite",)"
    R"("compression_format":"zstd","checksum_format":"none"},)"
    R"("weight_map":{"w":"model-00000-of-00001.safetensors"}})";

// Removed when the program ends.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / unique_name("siltstone-fuzz-")) {
    fs::create_directories(path_ / "deltas");
    fs::create_directories(path_ / "weight_v000002");
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, ByteSpan bytes) const {
    std::error_code ignored;
    fs::remove(path_ / name, ignored);
    Result<File> file = File::create(path_ / name);
    if (!file || !file->write_at(0, bytes)) std::abort();
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Two tensors: "s", one F32, and "w", 100 BF16.
std::unique_ptr<ModelState> make_state() {
  static const std::vector<std::byte> zeros(200);
  const auto view = view_memory({{"s", DType::kF32, {}, ByteSpan(zeros).first(4), {}},
                                 {"w", DType::kBF16, {10, 10}, zeros, {}}});
  return *ModelState::read(**view, 1);
}

std::string good_frames() {
  const std::vector<std::byte> plain = {std::byte{1}, {}, {}, {}, std::byte{7}, {}, {}, {}, {}};
  const std::vector<std::byte> frame = *compress_frame(plain);
  const auto size = static_cast<int64_t>(frame.size());
  return make_safetensors_prefix({{"w", DType::kU8, {size}, frame.size()}}, {}, 8) +
         std::string(as_text(frame));
}

void apply(const Folder& folder, bool trl) {
  const SourceOptions options{.unchecked = true, .threads = 1};
  const auto source = trl ? open_trl(folder.path(), options) : open_slime(folder.path(), options);
  if (!source) return;
  const std::unique_ptr<ModelState> state = make_state();
  if ((*source)->numbers() != std::vector<uint64_t>{2}) return;
  if (const Result<bool> full = (*source)->is_full(2); !full || *full) return;
  (void)(*source)->apply(2, 1, state.get());
  if (state->bytes(0).size() != 4 || state->bytes(1).size() != 200) std::abort();
}

}  // namespace
}  // namespace siltstone

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace siltstone;
  static const Folder folder;
  if (size == 0) return 0;
  const ByteSpan bytes = std::as_bytes(std::span(data, size)).subspan(1);
  const std::string frames = good_frames();
  const bool index = data[0] % 3 == 2;
  if (data[0] % 3 == 0) {
    folder.write("deltas/step_000002.safetensors", bytes);
    apply(folder, true);
  } else {
    folder.write(std::string("weight_v000002/") + kFrames, index ? as_bytes(frames) : bytes);
    folder.write("weight_v000002/" + std::string(kSlimeIndex), index ? bytes : as_bytes(kIndex));
    apply(folder, false);
  }
  return 0;
}
