// Early return of errors from functions that return Result or Status.
//
// Names are made unique by counter, not by line, so that uses may nest through lambdas.
#pragma once

#include "siltstone/result.h"

#define SILT_CONCAT_INNER(a, b) a##b
#define SILT_CONCAT(a, b) SILT_CONCAT_INNER(a, b)

// Evaluates a Status or Result and returns its error, if any, from the enclosing function.
#define SILT_TRY(expr) SILT_TRY_IMPL(SILT_CONCAT(silt_status_, __COUNTER__), expr)
#define SILT_TRY_IMPL(tmp, expr)             \
  do {                                       \
    auto tmp = (expr);                       \
    if (!tmp) return std::move(tmp).error(); \
  } while (false)

// SILT_ASSIGN(auto x, f()): declares or assigns the value, or returns the error.
#define SILT_ASSIGN(lhs, expr) SILT_ASSIGN_IMPL(SILT_CONCAT(silt_result_, __COUNTER__), lhs, expr)
#define SILT_ASSIGN_IMPL(tmp, lhs, expr)   \
  auto tmp = (expr);                       \
  if (!tmp) return std::move(tmp).error(); \
  lhs = *std::move(tmp)
