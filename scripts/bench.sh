#!/bin/bash
# Runs every benchmark program of the release build, or those whose names contain one of the given
# words: scripts/bench.sh [WORD...]
# Each prints its own command, machine and figures; bench/results keeps the runs that were quoted.
set -euo pipefail
cd "$(dirname "$0")/.."

count=0
for program in build/bench/*/bench_*; do
  [ -f "$program" ] && [ -x "$program" ] || continue
  name=$(basename "$program")
  if [ $# -gt 0 ]; then
    chosen=no
    for word in "$@"; do [[ $name == *$word* ]] && chosen=yes; done
    [ $chosen = yes ] || continue
  fi
  echo "== $name"
  "$program"
  count=$((count + 1))
done
# Whole commands against cat and cp of the same files; needs 12 GiB of disk under $TMPDIR.
if [ $# -eq 0 ] || [[ " $* " == *flows* ]]; then
  echo "== flows"
  python3 bench/flows/flows.py
  count=$((count + 1))
fi
if [ "$count" -eq 0 ]; then
  echo "bench: no benchmark program matches" >&2
  exit 1
fi
