#!/bin/sh
# usage: build-model.sh OUT.gguf
# Trains the bundled model, or takes it from the user's cache when corpus, code and requirements are unchanged.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 OUT.gguf" >&2; exit 2; }
directory=$(dirname "$1")
[ -d "$directory" ] || { echo "$0: $directory is not a directory; create it first" >&2; exit 2; }
output=$(cd "$directory" && pwd)/$(basename "$1")
cd "$(dirname "$0")"
key=$(LC_ALL=C find corpus training somagent_slm/gguf_file.py requirements-train.txt -type f ! -name '*.pyc' ! -name export_hf.py | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
models=${XDG_CACHE_HOME:-$HOME/.cache}/somagent/models
cached=$models/$key.gguf
mkdir -p "$models"
exec 8>"$models/$key.lock"
flock 8
if [ ! -e "$cached" ]; then
  venv=$(scripts/venv.sh slm-train-venv requirements-train.txt)
  MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=1000000000 PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 nice -n 10 "$venv/bin/python" -m training.build "$cached.new"
  mv "$cached.new" "$cached"
fi
cp "$cached" "$output.new"
mv "$output.new" "$output"
echo "$output ($(sha256sum "$output" | cut -c1-16), key $key)"
