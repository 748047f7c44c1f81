#!/bin/sh
# Runs the tests on the real model and the real servers. Extra arguments go to pytest.
set -eu
cd "$(dirname "$0")"
venv=$(scripts/venv.sh slm-serve-venv requirements-serve.txt requirements-test.txt)
model=$(mktemp -d)
trap 'rm -rf "$model"' EXIT
./build-model.sh "$model/bundled.gguf" >&2
SLM_TEST_MODEL=$model/bundled.gguf PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
