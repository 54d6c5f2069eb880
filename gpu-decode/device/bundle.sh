#!/usr/bin/env bash
# Collects what a machine with a GPU and without cargo needs to test and measure this checkout: bundle.sh [FOLDER]
# The machine needs a CUDA driver and a glibc as new as this one's; run.sh, in the folder, says which it finds.
# See README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/device}
rm -rf "$out"
mkdir -p "$out/tests" "$out/data" "$out/lib"

# What cargo built, from its messages: lines "KIND NAME FILE".
built() {
    cargo "$@" --release --locked --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    artifact = json.loads(line)
    if artifact["reason"] != "compiler-artifact":
        continue
    target = artifact["target"]
    if artifact["executable"]:
        print("test" if artifact["profile"]["test"] else "bin", target["name"], artifact["executable"])
    elif "cdylib" in target["kind"]:
        print("lib", target["name"], next(f for f in artifact["filenames"] if f.endswith(".so")))
'
}

# Debugging information is larger than the programs; line numbers of a panic are in the message.
collect() {
    while read -r kind name file; do
        case $kind in
        bin) strip -o "$out/$name" "$file" ;;
        test) strip -o "$out/tests/$name" "$file" ;;
        lib) strip -o "$out/lib/$(basename "$file")" "$file" ;;
        esac
    done
}

built build --package cmz-cli --package cmz-gpu-decode --package cmz-gpu-c | collect
built build --package cmz-gpu-decode --example resident --example products | collect
built test --package cmz-gpu-decode --test gpu --no-run | collect

for source in tests/data/*.safetensors; do
    name=$(basename "$source" .safetensors)
    cp "$source" "$out/data/"
    "$out/cmz" compress --force "$source" -o "$out/data/$name.cmz" >"$out/data/log" 2>&1
    "$out/cmz" compress --force --level max "$source" -o "$out/data/$name-max.cmz" >"$out/data/log" 2>&1
done
rm -f "$out/data/log"
cp gpu-decode/device/{run.sh,peers.py,dense.py,dfloat11_encoder.py} gpu-decode/examples/torch_load.py "$out/"
git rev-parse HEAD >"$out/commit"
du -sh "$out"
