// Records of a bucket and of a replica folder: whatever the bytes, parsing ends in a value or an
// error. The first byte chooses the parser; for sealed records the rest is also tried with a right
// seal.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/checksum.h"
#include "replica/files_replica.h"
#include "repo/commit.h"
#include "repo/schema.h"

namespace {

using namespace siltstone;

constexpr std::string_view kRepoId = "00000000000000000000000000000000";

std::string with_seal(std::string_view text) {
  if (text.ends_with('}')) text.remove_suffix(1);
  std::string sealed(text);
  return sealed + ",\"seal\":\"" + sha256_hex(as_bytes(text)) + "\"}";
}

void parse_commit_and_back(std::string_view text) {
  const Result<Commit> commit = parse_commit(text, kRepoId, "main", 1);
  if (!commit) return;
  const Result<std::string> again = format_commit(*commit);
  if (again && !parse_commit(*again, kRepoId, "main", 1)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 8) {
    case 0:
      parse_commit_and_back(text);
      break;
    case 1:
      parse_commit_and_back(with_seal(text));
      break;
    case 2:
      (void)parse_schema(text, sha256_hex(as_bytes(text)));
      break;
    case 3:
      (void)parse_object_list(text);
      break;
    case 4:
      (void)parse_ref(with_seal(text), kRepoId);
      break;
    case 5:
      (void)parse_repo(with_seal(text));
      break;
    case 6:
      (void)parse_journal(text);
      break;
    default:
      (void)parse_replica(text);
      break;
  }
  return 0;
}
