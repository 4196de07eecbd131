#include "store/s3_credentials.h"

#include <algorithm>
#include <cstdlib>
#include <map>

#include "base/files.h"
#include "base/try.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 20;

using Settings = std::map<std::string, std::string>;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// The settings of [section]; nothing if the file or the section is not there. Indented lines belong
// to a nested setting, of which none is used here.
Result<std::optional<Settings>> read_section(const fs::path& file, std::string_view section) {
  Result<std::string> text = read_file(file, kMaxFileBytes);
  if (!text && text.error().code == Code::kNotFound) return std::optional<Settings>();
  if (!text) return std::move(text).error();
  std::optional<Settings> settings;
  bool inside = false;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty() || line[0] == '#' || line[0] == ';' || line[0] == ' ' || line[0] == '\t')
      continue;
    if (line[0] == '[') {
      const std::string_view name = trimmed(line.substr(1, line.find(']') - 1));
      inside = name == section;
      if (inside && !settings) settings.emplace();
      continue;
    }
    const size_t equals = line.find('=');
    if (!inside || equals == line.npos) continue;
    (*settings)[std::string(trimmed(line.substr(0, equals)))] = trimmed(line.substr(equals + 1));
  }
  return settings;
}

std::string value_of(const Settings& settings, const char* key) {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

fs::path file_of(const Environment& environment, const char* variable, const char* name) {
  if (const std::optional<std::string> path = environment(variable)) return *path;
  const std::optional<std::string> home = environment("HOME");
  return home ? fs::path(*home) / ".aws" / name : fs::path();
}

// Settings of both files; those of the credentials file count where both have one.
Result<Settings> read_profile(const Environment& environment) {
  const std::optional<std::string> asked = environment("AWS_PROFILE");
  const std::string profile = asked.value_or("default");
  const fs::path credentials = file_of(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const fs::path config = file_of(environment, "AWS_CONFIG_FILE", "config");
  std::optional<Settings> keys;
  std::optional<Settings> others;
  if (!credentials.empty()) {
    SILT_ASSIGN(keys, read_section(credentials, profile));
  }
  if (!config.empty()) {
    const std::string section = profile == "default" ? profile : "profile " + profile;
    SILT_ASSIGN(others, read_section(config, section));
  }
  if (asked && !keys && !others) {
    return Error{Code::kPermission, "AWS_PROFILE names the profile '" + profile +
                                        "', which is neither in '" + credentials.string() +
                                        "' nor in '" + config.string() + "'"};
  }
  Settings all = keys.value_or(Settings());
  if (others) all.insert(others->begin(), others->end());
  return all;
}

Result<std::optional<S3Credentials>> keys_of(const S3Credentials& keys, const std::string& where) {
  if (keys.access_key.empty() && keys.secret_key.empty()) return std::optional<S3Credentials>();
  if (!keys.access_key.empty() && !keys.secret_key.empty()) return std::optional(keys);
  return Error{Code::kPermission,
               where + (keys.access_key.empty() ? "a secret key but no access key"
                                                : "an access key but no secret key")};
}

// Settings by which a profile says that its keys come from elsewhere.
constexpr const char* kElsewhere[] = {"credential_process", "role_arn", "sso_session",
                                      "sso_start_url", "credential_source"};

Result<std::optional<S3Credentials>> profile_keys(const Settings& profile) {
  SILT_ASSIGN(
      std::optional<S3Credentials> keys,
      keys_of({value_of(profile, "aws_access_key_id"), value_of(profile, "aws_secret_access_key"),
               value_of(profile, "aws_session_token")},
              "the S3 profile has "));
  if (keys) return keys;
  for (const char* setting : kElsewhere) {
    if (!profile.contains(setting)) continue;
    return Error{Code::kPermission,
                 "the S3 profile takes its keys from '" + std::string(setting) +
                     "', which is not looked up here; put them into the environment, as `aws "
                     "configure export-credentials --format env` prints them"};
  }
  return keys;
}

}  // namespace

Environment process_environment() {
  return [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

Result<S3Profile> find_s3_profile(const Environment& environment) {
  SILT_ASSIGN(const Settings profile, read_profile(environment));
  const auto first_of = [&](std::initializer_list<const char*> variables, const char* setting) {
    for (const char* variable : variables)
      if (const std::optional<std::string> value = environment(variable)) return *value;
    return value_of(profile, setting);
  };
  S3Profile out;
  SILT_ASSIGN(out.credentials, keys_of({environment("AWS_ACCESS_KEY_ID").value_or(""),
                                        environment("AWS_SECRET_ACCESS_KEY").value_or(""),
                                        environment("AWS_SESSION_TOKEN").value_or("")},
                                       "the environment has "));
  if (!out.credentials) {
    SILT_ASSIGN(out.credentials, profile_keys(profile));
  }
  out.region = first_of({"AWS_REGION", "AWS_DEFAULT_REGION"}, "region");
  out.endpoint = first_of({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}, "endpoint_url");
  return out;
}

}  // namespace siltstone
