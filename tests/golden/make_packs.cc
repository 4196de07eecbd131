// Writes the golden packs: make_packs tests/golden
//
// read/pack/    what every reader must read, for ever. Existing files are left alone: a change
// there
//               would be a change of the format. NAME.json says what NAME.pack (or the packs it
//               lists) does: per tensor old and new bytes, and every section's header. Old bytes
//               are hexadecimal, or {repeat: 8 bytes, bytes: length}; new bytes are hexadecimal, or
//               {patches: [[byte offset, byte]...]} on the old ones. manifest.json lists the cases.
// refuse/pack/  what every reader must refuse; manifest.json says why and for which tensor.
// write/pack/   what the library writes today. Regenerate when the encoder changes on purpose.
#include <zstd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "golden/pack_cases.h"

namespace siltstone::test {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
  std::printf("%s %zu\n", path.c_str(), content.size());
}

void write_cases(const fs::path& folder, const std::vector<GoldenCase>& cases, bool keep) {
  fs::create_directories(folder);
  Json manifest = {{"cases", Json::array()}, {"zstd", ZSTD_versionString()}};
  for (const GoldenCase& golden : cases) {
    manifest["cases"].push_back(golden.name);
    const fs::path description = folder / (golden.name + ".json");
    if (keep && fs::exists(description)) continue;
    for (const GoldenFile& pack : golden.packs) write(folder / pack.name, pack.content);
    write(description, golden.description.dump(1) + "\n");
  }
  write(folder / "manifest.json", manifest.dump(1) + "\n");
}

void write_refused(const fs::path& folder, const std::vector<GoldenCase>& cases) {
  fs::create_directories(folder);
  Json manifest = {{"cases", Json::array()}};
  for (const GoldenCase& golden : cases) {
    manifest["cases"].push_back(golden.description);
    for (const GoldenFile& pack : golden.packs) write(folder / pack.name, pack.content);
  }
  write(folder / "manifest.json", manifest.dump(1) + "\n");
}

}  // namespace
}  // namespace siltstone::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_packs GOLDEN_FOLDER\n");
    return 2;
  }
  const std::filesystem::path root = argv[1];
  siltstone::test::write_cases(root / "read" / "pack", siltstone::test::golden_read_cases(), true);
  siltstone::test::write_cases(root / "write" / "pack", siltstone::test::golden_write_cases(),
                               false);
  siltstone::test::write_refused(root / "refuse" / "pack", siltstone::test::golden_refuse_cases());
  return 0;
}
