#!/bin/sh
# usage: venv.sh <name> <requirements file>...
# Prints the path of a virtual environment with exactly these requirements, made once and kept under the user's cache.
set -eu
name=$1
shift
python=${PYTHON:-python3.11}
hash=$( { "$python" -c 'import sys; print(sys.version, sys.prefix)'; cat "$@"; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/somagent
target=$cache/$name-$hash
mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock 9
if [ ! -e "$target/.complete" ]; then
  rm -rf "$target"
  "$python" -m venv "$target" >&2
  for file in "$@"; do
    nice -n 10 "$target/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$file" >&2
  done
  touch "$target/.complete"
fi
echo "$target"
