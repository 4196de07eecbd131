#!/bin/bash
# Tests with real engines: vLLM for CPUs, in an environment of its own (about 3.5 GB). Usage: scripts/engines.sh [pytest words]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv-engines/.made-$(sha256sum tests/engines/requirements.txt | cut -c1-16)
if [ ! -e "$stamp" ]; then
  echo "engines: installing vLLM into .venv-engines (once)"
  rm -rf .venv-engines
  "$python" -m venv .venv-engines
  install=(.venv-engines/bin/python -m pip install -q --disable-pip-version-check --no-compile)
  "${install[@]}" -r tests/engines/requirements.txt
  # Built for another torch than the CPU's; with them transformers cannot import a model.
  .venv-engines/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
  touch "$stamp"
fi
.venv-engines/bin/python -m pip install -q --disable-pip-version-check --force-reinstall --no-deps dist/siltstone-*.whl
.venv-engines/bin/python -m pytest -q -s -p no:cacheprovider tests/engines "$@"
