// Result<T> and Status: how every fallible call of the library reports.
//
// Nothing throws across the C++ API except allocation failure. An Error carries a Code, which says
// what the caller should do, and a message for people, which gains context while it climbs. The
// spelling follows std::expected so that Result can become an alias of it one day.
//
// Threads: values; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace siltstone {

// Values are pinned: they are part of the ABI and of docs/errors.md, which maps each to an exit
// status and to an exception class. New codes take new numbers.
enum class Code : uint8_t {
  kInvalidArgument = 1,  // fix the call
  kNotFound = 2,         // no such version, object or file
  kConflict = 3,         // somebody committed or created it first: re-read, retry
  kCorrupt = 4,          // bytes do not match what was promised
  kMismatch = 5,         // a replica or base is not at the state that was assumed
  kUnsupported = 6,      // a newer format, or a feature that is missing here
  kUnavailable = 7,      // passing failure: retry later; the outcome of a write is unknown
  kIo = 8,               // the operating system refused: disk full, input or output error
  kDevice = 9,           // an accelerator failed
  kInternal = 10,        // our bug: please report
  kPermission = 11,      // credentials or access rights
  kCancelled = 12,       // the caller asked to stop
};

std::string_view code_name(Code code);

struct Error {
  Code code = Code::kInternal;
  std::string message;

  // "context: message", same code.
  Error in(std::string_view context) const { return {code, std::string(context) + ": " + message}; }
};

template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  // REQUIRES: has_value().
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  // By value, so that `for (x : *f())` keeps what f returned alive.
  T operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  // REQUIRES: !has_value().
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

  // The same value, or the error with "what: " before its message.
  Result in(std::string_view what) && {
    if (has_value()) return std::move(*this);
    return error().in(what);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}

  bool has_value() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

  Result in(std::string_view what) && {
    if (ok_) return {};
    return error_.in(what);
  }

 private:
  Error error_;
  bool ok_ = true;
};

using Status = Result<void>;

}  // namespace siltstone
