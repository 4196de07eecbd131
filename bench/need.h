// What a benchmark does with a result: takes the value, or ends the program with the error.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "siltstone/result.h"

namespace siltstone::bench {

inline void need(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, status.error().message.c_str());
  std::exit(1);
}

template <class T>
T need(Result<T> result) {
  if (!result) need(Status(result.error()));
  return *std::move(result);
}

}  // namespace siltstone::bench
