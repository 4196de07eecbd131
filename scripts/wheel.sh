#!/bin/bash
# Builds the wheel into dist, installs it into .venv, and checks it in an environment that has nothing
# else. Usage: scripts/wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."

export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-2}
pip=(-m pip --disable-pip-version-check -q)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
.venv/bin/python "${pip[@]}" wheel --no-build-isolation --no-deps -w "$made" .
mkdir -p dist
rm -f dist/siltstone-*.whl
cp "$made"/*.whl dist/
.venv/bin/python "${pip[@]}" install --force-reinstall --no-deps dist/siltstone-*.whl

.venv/bin/python -m venv "$made/clean"
"$made/clean/bin/python" "${pip[@]}" install dist/siltstone-*.whl
(cd "$made" && clean/bin/python -c '
import siltstone
repository = siltstone.open("bucket", create=True)
print("wheel:", repository, siltstone.__version__)
')
"$made/clean/bin/siltstone" verify "$made/bucket" --quiet
echo "wheel: $(ls dist/siltstone-*.whl) works in an environment of its own"
