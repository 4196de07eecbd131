#!/bin/bash
# Layering, formatting, clang-tidy. Prints every complaint and fails at the end if there was one.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

python3 scripts/check_layers.py --self-test || failed=1
python3 scripts/check_docs.py || failed=1

mapfile -t sources < <(git ls-files '*.cc' '*.h')
clang-format-14 --dry-run --Werror "${sources[@]}" || failed=1

# The compile database is g++'s; clang does not know each of its warning flags.
cmake --preset dev >/dev/null || exit 1
mapfile -t units < <(git ls-files 'src/*.cc' 'cli/*.cc')
if [ ${#units[@]} -gt 0 ]; then
  printf '%s\n' "${units[@]}" |
    xargs -P "${JOBS:-2}" -n 4 clang-tidy-14 -p build-dev --quiet --warnings-as-errors='*' \
      --extra-arg=-Wno-unknown-warning-option 2> >(grep -v 'generated\.$' >&2) || failed=1
fi

[ $failed -eq 0 ] && echo "lint: clean"
exit $failed
