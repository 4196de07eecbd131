#!/bin/bash
# Builds and runs the whole suite under sanitizers: scripts/sanitize.sh asan|tsan
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?asan or tsan}
jobs=${JOBS:-2}

cmake --preset "$kind" ${CMAKE_ARGS:-}
cmake --build --preset "$kind" --parallel "$jobs"

# ThreadSanitizer of GCC 12 needs its shadow memory where newer kernels may map the program; without
# address randomisation they never meet. Some containers forbid asking for that: then try as it is.
run=()
if [ "$kind" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
  run=(setarch "$(uname -m)" -R)
fi
"${run[@]}" ctest --preset "$kind" -j "$jobs"
