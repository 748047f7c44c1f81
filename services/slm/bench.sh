#!/bin/sh
# usage: bench.sh [--rounds N] [--tokens N] [--callers N] [--realtime]
# What the way to the model costs, against the model alone and against Ray Serve's default way, in one run. As root on
# Linux: both servers run in a network namespace of their own. With --realtime, as the real root, other load on the machine
# does not count: what a request passes through goes before it, in each of the ways.
set -eu
cd "$(dirname "$0")"
venv=$(scripts/venv.sh slm-serve-venv requirements-serve.txt requirements-test.txt)
folder=$(mktemp -d /tmp/b-XXXXXX)
trap 'rm -rf "$folder"' EXIT
./build-model.sh "$folder/bundled.gguf" >&2
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
openssl rand -hex 24 >"$folder/token"
openssl rand -hex 24 >"$folder/ray-token"
export SLM_MODEL_PATH="$folder/bundled.gguf" SLM_API_KEY_FILE="$folder/token" SLM_TLS_DIR="$folder" SLM_HOST=127.0.0.1
export RAY_AUTH_TOKEN_PATH="$folder/ray-token" TMPDIR="$folder" PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1
# In a namespace of users nobody may set such a priority.
[ "$(id -u)" = 0 ] || users=--map-root-user
unshare ${users:-} --net --pid --fork --kill-child --mount-proc \
  sh -c 'ip link set lo up && exec "$@"' sh "$venv/bin/python" -m bench.compare "$@"
