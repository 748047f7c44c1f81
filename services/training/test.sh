#!/bin/sh
# Tunes the real model, with the packages that train beside those that serve. Extra arguments go to pytest.
set -eu
cd "$(dirname "$0")"
slm=$(cd ../slm && pwd)
train=$(cd "$slm" && scripts/venv.sh slm-train-venv requirements-train.txt)
serve=$(cd "$slm" && scripts/venv.sh slm-serve-venv requirements-serve.txt requirements-test.txt)
model=$(mktemp -d)
trap 'rm -rf "$model"' EXIT
"$slm/build-model.sh" "$model/bundled.gguf" >&2
export SLM_TEST_MODEL="$model/bundled.gguf" TRAINING_CORPUS="$slm/corpus" PYTHONDONTWRITEBYTECODE=1
PYTHONPATH=.:$slm:$serve/lib/python3.11/site-packages "$train/bin/python" -m pytest -q -p no:cacheprovider tests "$@"
