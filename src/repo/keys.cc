#include "repo/keys.h"

#include <cinttypes>
#include <cstdio>

namespace siltstone {
namespace {

std::string padded(const char* format, uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string commit_key(std::string_view branch, uint64_t seq) {
  return "log/" + std::string(branch) + "/" + padded("%020" PRIu64, seq) + ".json";
}

std::string head_key(std::string_view branch) {
  return "head/" + std::string(branch) + ".json";
}

std::string branch_key(std::string_view branch) {
  return "branches/" + std::string(branch) + ".json";
}

std::string tag_key(std::string_view tag) {
  return "tags/" + std::string(tag) + ".json";
}

std::string schema_key(std::string_view sha256) {
  return "schema/" + std::string(sha256) + ".json";
}

std::string companion_key(std::string_view sha256) {
  return "files/" + std::string(sha256);
}

std::string attempt_prefix(std::string_view branch, uint64_t epoch, uint64_t seq,
                           std::string_view attempt) {
  return "obj/" + std::string(branch) + "/" + padded("%08" PRIx64, epoch) + "/" +
         padded("%020" PRIu64, seq) + "." + std::string(attempt) + "/";
}

}  // namespace siltstone
