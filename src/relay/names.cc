#include "relay/names.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/numbers.h"
#include "repo/keys.h"
#include "siltstone/store.h"
#include "siltstone/version.h"

namespace siltstone::relay {
namespace {

constexpr size_t kMaxComponents = 7;
constexpr size_t kSeqDigits = 20;
constexpr size_t kEpochDigits = 8;
constexpr size_t kAttemptDigits = 32;
constexpr size_t kHashDigits = 64;
constexpr std::string_view kSuffix = ".json";

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::optional<uint64_t> parse_seq(std::string_view text) {
  return text.size() == kSeqDigits ? parse_decimal(text) : std::nullopt;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (parts.size() < kMaxComponents) {
    const size_t slash = text.find('/');
    parts.push_back(text.substr(0, slash));
    if (slash == std::string_view::npos) break;
    text.remove_prefix(slash + 1);
  }
  return parts;
}

// "x.json" -> "x"
std::optional<std::string_view> stem(std::string_view text) {
  if (!text.ends_with(kSuffix)) return std::nullopt;
  return text.substr(0, text.size() - kSuffix.size());
}

bool fill_commit(const std::vector<std::string_view>& parts, ObjectName* name) {
  if (parts.size() != 3 || !is_ref_name(parts[1])) return false;
  const auto number = stem(parts[2]);
  const auto seq = number ? parse_seq(*number) : std::nullopt;
  if (!seq) return false;
  name->branch = parts[1];
  name->seq = *seq;
  return true;
}

bool fill_data(const std::vector<std::string_view>& parts, ObjectName* name) {
  if (parts.size() < 5 || !is_ref_name(parts[1]) || !is_hex(parts[2], kEpochDigits)) return false;
  const std::string_view folder = parts[3];
  if (folder.size() != kSeqDigits + 1 + kAttemptDigits || folder[kSeqDigits] != '.') return false;
  const auto seq = parse_seq(folder.substr(0, kSeqDigits));
  if (!seq || !is_hex(folder.substr(kSeqDigits + 1), kAttemptDigits)) return false;
  name->branch = parts[1];
  name->seq = *seq;
  name->attempt = folder.substr(kSeqDigits + 1);
  return true;
}

bool fill(const std::vector<std::string_view>& parts, ObjectName* name) {
  switch (name->kind) {
    case NameKind::kRepo:
      return true;
    case NameKind::kCommit:
      return fill_commit(parts, name);
    case NameKind::kData:
      return fill_data(parts, name);
    case NameKind::kReference:
    case NameKind::kHead: {
      const auto ref = parts.size() == 2 ? stem(parts[1]) : std::nullopt;
      return ref && is_ref_name(*ref);
    }
    case NameKind::kAddressed: {
      if (parts.size() != 2) return false;
      const auto hash = parts[0] == "files" ? parts[1] : stem(parts[1]);
      if (!hash || !is_hex(*hash, kHashDigits)) return false;
      name->sha256 = *hash;
      return true;
    }
  }
  return false;
}

std::optional<NameKind> kind_of(std::string_view text, std::string_view folder) {
  struct Row {
    std::string_view folder;
    NameKind kind;
  };
  static constexpr std::array<Row, 7> kRows = {{{"log", NameKind::kCommit},
                                                {"tags", NameKind::kReference},
                                                {"branches", NameKind::kReference},
                                                {"head", NameKind::kHead},
                                                {"schema", NameKind::kAddressed},
                                                {"files", NameKind::kAddressed},
                                                {"obj", NameKind::kData}}};
  if (text == kRepoKey) return NameKind::kRepo;
  for (const Row& row : kRows) {
    if (row.folder == folder) return row.kind;
  }
  return std::nullopt;
}

}  // namespace

std::optional<ObjectName> parse_object_name(std::string_view text) {
  if (!is_object_name(text)) return std::nullopt;
  const std::vector<std::string_view> parts = split(text);
  const std::optional<NameKind> kind = kind_of(text, parts[0]);
  if (!kind) return std::nullopt;
  ObjectName name;
  name.kind = *kind;
  name.text = text;
  if (!fill(parts, &name)) return std::nullopt;
  return name;
}

ObjectName repo_name() {
  ObjectName name;
  name.text = kRepoKey;
  return name;
}

ObjectName commit_name(std::string_view branch, uint64_t seq) {
  ObjectName name;
  name.kind = NameKind::kCommit;
  name.text = commit_key(branch, seq);
  name.branch = branch;
  name.seq = seq;
  return name;
}

}  // namespace siltstone::relay
