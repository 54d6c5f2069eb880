#!/usr/bin/env bash
# Tests and measures a bundle on a machine with a GPU: run.sh [FILE.cmz...]
# Prints what failed, what the benchmarks say, and a table of all steps; everything printed is in logs/. Fails if a
# step fails. See README.md.
#     CMZ_SIZES   MB of the matrices for peers.py, in place of its own; 0: without peers.py
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
logs=$here/logs
mkdir -p "$logs"
files=("$@")
[ "${#files[@]}" -gt 0 ] || files=("$here"/data/*.cmz)
export CMZ_REQUIRE_GPU=1
table=()
failed=0

row() { table+=("$(printf '%-44s %-8s %6s' "$1" "$2" "$3")"); }

# Runs a step, keeps what it prints, and shows it if it fails.
step() { # name, command
    local name=$1 log start=$SECONDS status=0
    shift
    log=$logs/${name//[ \/]/-}.log
    "$@" >"$log" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        row "$name" ok "$((SECONDS - start))"
    else
        row "$name" "exit $status" "$((SECONDS - start))"
        failed=1
        printf '== %s: exit status %s\n' "$name" "$status"
        tail -n 60 "$log"
    fi
    return "$status"
}

echo "commit $(cat "$here/commit"), $(ldd --version | head -n 1)"
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader

step "cmz doctor" "$here/cmz" doctor && cat "$logs/cmz-doctor.log"
for test in "$here"/tests/*; do
    step "test $(basename "$test")" "$test" --test-threads=1
done

# Of the CUDA toolkit: memory, races in shared memory, misuse of barriers, reads of memory that nobody wrote.
for tool in memcheck racecheck synccheck initcheck; do
    if command -v compute-sanitizer >/dev/null; then
        step "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$here/tests/gpu" --test-threads=1
    else
        row "compute-sanitizer $tool" "not here" -
    fi
done

for file in "${files[@]}"; do
    name=$(basename "$file" .cmz)
    step "verify $name" "$here/cmz" verify --device cuda "$file"
    step "bench $name" "$here/cmz" bench --device cuda "$file" && cat "$logs/bench-$name.log"
done

step "example resident" "$here/resident" && cat "$logs/example-resident.log"
step "example products" "$here/products" && cat "$logs/example-products.log"
if python3 -c 'import torch' 2>/dev/null; then
    step "dense products" python3 "$here/dense.py" && cat "$logs/dense-products.log"
else
    row "dense products" "not here" -
fi
for original in "$here"/data/*.safetensors; do
    name=$(basename "$original" .safetensors)
    if python3 -c 'import torch' 2>/dev/null; then
        for option in "" --load; do
            # shellcheck disable=SC2086
            step "torch $name$option" python3 "$here/torch_load.py" "$here/data/$name.cmz" $option --original "$original" \
                --library "$here/lib/libcmz_gpu.so"
        done
    else
        row "torch $name" "not here" -
    fi
done

# Beside DFloat11 and nvCOMP. Of all that Python needs only NumPy is needed to measure cmz alone.
if [ -d "$here/wheels" ]; then
    export PYTHONPATH=$here/site
    step "install wheels" python3 -m pip install --quiet --no-index --no-deps --upgrade --target "$here/site" \
        "$here"/wheels/*.whl
fi
peers() { python3 "$here/peers.py" ${CMZ_SIZES:+--sizes "$CMZ_SIZES"} --json "$logs/peers.json" >"$logs/peers.md"; }
if [ "${CMZ_SIZES:-}" = 0 ]; then
    row peers "left out" -
elif ! python3 -c 'import numpy' 2>/dev/null; then
    row peers "no NumPy" -
else
    step peers peers
    cat "$logs/peers.md"
fi

printf '\n%-44s %-8s %6s\n' step result seconds
printf '%s\n' "${table[@]}"
exit "$failed"
