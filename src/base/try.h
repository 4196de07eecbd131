// Early return of errors from functions that return Result or Status.
#pragma once

#include "siltstone/result.h"

#define SILT_CONCAT_INNER(a, b) a##b
#define SILT_CONCAT(a, b) SILT_CONCAT_INNER(a, b)

// Evaluates a Status or Result and returns its error, if any, from the enclosing function.
#define SILT_TRY(expr)                                       \
  do {                                                       \
    auto silt_status = (expr);                               \
    if (!silt_status) return std::move(silt_status).error(); \
  } while (false)

// SILT_ASSIGN(auto x, f()): declares or assigns the value, or returns the error.
#define SILT_ASSIGN(lhs, expr) SILT_ASSIGN_IMPL(SILT_CONCAT(silt_result_, __LINE__), lhs, expr)
#define SILT_ASSIGN_IMPL(tmp, lhs, expr)   \
  auto tmp = (expr);                       \
  if (!tmp) return std::move(tmp).error(); \
  lhs = *std::move(tmp)
