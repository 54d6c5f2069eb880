#!/usr/bin/env bash
# Measures cmz beside zstd, ZipNN, OpenZL, pcodec and memcpy and prints the tables of BENCHMARKS.md.
# See README.md in this folder. Arguments go to measure.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
environment=${CMZ_PEERS_VENV:-target/peers/venv}

cargo build --quiet --release --locked -p cmz-benches --bin cmz-peer
if ! cmp -s "$here/requirements.txt" "$environment/requirements.txt"; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$environment/requirements.txt"
fi
# Memory once used is kept, so that nobody pays for fresh pages in every round.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000
exec "$environment/bin/python" -W ignore "$here/measure.py" "$@"
