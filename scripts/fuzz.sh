#!/bin/bash
# Runs every libFuzzer target for a while: scripts/fuzz.sh [SECONDS each, default 60]
# New inputs that reach new code go to build-fuzz/corpus; a crash leaves its input in build-fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

cmake --preset fuzz ${CMAKE_ARGS:-}
cmake --build --preset fuzz --parallel "${JOBS:-2}"
mkdir -p build-fuzz/found

count=0
for source in fuzz/*_fuzz.cc; do
  [ -e "$source" ] || break
  name=$(basename "$source" _fuzz.cc)
  mkdir -p "build-fuzz/corpus/$name"
  echo "fuzz: $name for $seconds s"
  "build-fuzz/fuzz/${name}_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/found/$name-" \
    "build-fuzz/corpus/$name" "fuzz/corpus/$name"
  count=$((count + 1))
done
if [ "$count" -eq 0 ]; then
  echo "fuzz: there is no fuzz/*_fuzz.cc" >&2
  exit 1
fi
echo "fuzz: $count targets, nothing found"
