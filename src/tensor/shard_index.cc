#include "tensor/shard_index.h"

#include <vector>

#include "base/try.h"
#include "tensor/strict_sax.h"
#include "tensor/text.h"

namespace siltstone {
namespace {

constexpr int kMaxDepth = 8;

class IndexSax final : public StrictSax {
 public:
  bool key(string_t& key) override;
  bool string(string_t& value) override;
  bool null() override { return other() || StrictSax::null(); }
  bool boolean(bool value) override { return other() || StrictSax::boolean(value); }
  bool number_integer(number_integer_t value) override {
    return other() || StrictSax::number_integer(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return other() || StrictSax::number_unsigned(value);
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return other() || StrictSax::number_float(value, text);
  }
  bool start_object(size_t elements) override;
  bool start_array(size_t elements) override;
  bool end_object() override;
  bool end_array() override;

  Result<std::map<std::string, std::string>> take() &&;

 protected:
  bool unexpected(const std::string& found) override;

 private:
  // Inside a value of the index that is not ours to check.
  bool other() const { return depth_ > 0 && !in_map_ && !map_next_; }
  bool deeper();

  int depth_ = 0;
  bool map_next_ = false;  // the value that follows is weight_map
  bool in_map_ = false;
  bool map_seen_ = false;
  std::string name_;
  std::map<std::string, std::string> weight_map_;
};

bool IndexSax::unexpected(const std::string& found) {
  if (in_map_) {
    return fail("the index's entry for tensor " + quote(name_) + " is " + found +
                "; expected a file name");
  }
  return fail((map_next_ ? "the index's 'weight_map' is " : "the index is ") + found +
              "; expected an object");
}

bool IndexSax::key(string_t& key) {
  if (in_map_) {
    name_ = std::move(key);
    if (!weight_map_.contains(name_)) return true;
    return fail("the index names tensor " + quote(name_) + " twice");
  }
  if (depth_ != 1 || key != "weight_map") return true;
  if (map_seen_) return fail("the index has two 'weight_map'");
  map_seen_ = true;
  map_next_ = true;
  return true;
}

bool IndexSax::string(string_t& value) {
  if (other()) return true;
  if (!in_map_) return StrictSax::string(value);
  if (!is_clean_component(value) || !value.ends_with(".safetensors")) {
    return fail("the index puts tensor " + quote(name_) + " into " + quote(value) +
                "; expected the name of a .safetensors file in the same folder");
  }
  weight_map_.emplace(name_, std::move(value));
  return true;
}

bool IndexSax::deeper() {
  if (++depth_ <= kMaxDepth) return true;
  return fail("the index is nested more than " + std::to_string(kMaxDepth) + " levels deep");
}

bool IndexSax::start_object(size_t elements) {
  if (in_map_) return StrictSax::start_object(elements);
  in_map_ = map_next_;
  map_next_ = false;
  return deeper();
}

bool IndexSax::start_array(size_t elements) {
  return other() ? deeper() : StrictSax::start_array(elements);
}

bool IndexSax::end_object() {
  --depth_;
  in_map_ = false;
  return true;
}

bool IndexSax::end_array() {
  --depth_;
  return true;
}

Result<std::map<std::string, std::string>> IndexSax::take() && {
  if (!map_seen_) return Error{Code::kCorrupt, "the index has no 'weight_map'"};
  if (weight_map_.empty()) return Error{Code::kCorrupt, "the index's 'weight_map' is empty"};
  return std::move(weight_map_);
}

}  // namespace

Result<std::map<std::string, std::string>> parse_shard_index(std::string_view json) {
  IndexSax sax;
  SILT_TRY(sax.parse(json, "the index"));
  return std::move(sax).take();
}

Status check_shard_index(const std::map<std::string, std::string>& weight_map,
                         std::span<const WeightFile> files, std::span<const TensorInfo> tensors) {
  std::map<std::string_view, std::string_view> holders;
  for (const WeightFile& file : files) {
    for (const WeightFile::Entry& entry : file.entries) {
      holders[tensors[entry.tensor].name] = file.path;
    }
  }
  for (const auto& [name, path] : weight_map) {
    const auto holder = holders.find(name);
    if (holder != holders.end() && holder->second == path) continue;
    return Error{Code::kCorrupt,
                 "the index puts tensor " + quote(name) + " into " + quote(path) +
                     (holder == holders.end() ? ", which does not hold it"
                                              : ", but " + quote(holder->second) + " holds it")};
  }
  for (const auto& [name, path] : holders) {
    if (weight_map.contains(std::string(name))) continue;
    return Error{Code::kCorrupt,
                 quote(path) + " holds tensor " + quote(name) + ", which the index does not name"};
  }
  return {};
}

}  // namespace siltstone
