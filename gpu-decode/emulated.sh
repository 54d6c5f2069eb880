#!/usr/bin/env bash
# The GPU code on a machine without a GPU: kernels and host code on the emulator, in every order and under sanitizers;
# and the checked-in PTX against its sources. Needs Rust, g++ and Python; the PTX also Python's package index.
#     CMZ_NVCC      the nvcc to check the PTX with, when it is already there
#     CMZ_NO_NVCC   set: leaves the check of the PTX out
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(--package cmz-gpu-emulator --package cmz-gpu-decode)

step() { printf '\n== %s\n' "$*"; }

# `cargo test` itself runs threads in forward order and streams lazily. What an order of threads finds does not depend on
# when streams are run, so each order is tried with one of the two.
step "other orders of threads, streams lazy and eager"
for way in reverse,eager random,lazy; do
    echo "$way"
    CUDA_EMU_ORDER=${way%,*} CUDA_EMU_STREAM=${way#*,} cargo test --quiet --locked "${packages[@]}" --tests
done

step "fibers as on machines other than x86-64"
CMZ_EMU_UCONTEXT=1 cargo test --quiet --locked --package cmz-gpu-emulator --tests

# Instruments the kernels and runs the tests with the sanitizer's libraries loaded first. cargo itself runs without.
sanitized() { # names for -fsanitize, libraries
    local libraries="" target
    for library in $2; do libraries+="$(g++ -print-file-name="$library"):"; done
    target=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    env "CARGO_TARGET_${target}_RUNNER=env LD_PRELOAD=${libraries%:}" CMZ_EMU_SANITIZE="$1" \
        cargo test --quiet --locked "${packages[@]}" --tests
}

step "out of bounds, misaligned, undefined"
# Leaks: the emulator keeps its stacks and tables on purpose.
ASAN_OPTIONS=detect_leaks=0 sanitized address,undefined "libasan.so libubsan.so"

step "data races"
# Only kernels are instrumented: of Rust code the sanitizer would not see the synchronisation.
TSAN_OPTIONS="exitcode=66 ignore_noninstrumented_modules=1" sanitized thread libtsan.so

step "the C interface and its header"
cargo test --quiet --locked --package cmz-gpu-c --tests
cargo xtask header --check
cargo build --quiet --locked --package cmz-cli --package cmz-gpu-c --package cmz-gpu-emulator
source=tests/data/minilm-layer0-bf16.safetensors
target/debug/cmz compress --force "$source" -o target/layer0.cmz >/dev/null
for way in "" --load; do
    # shellcheck disable=SC2086
    python3 gpu-decode/examples/torch_load.py target/layer0.cmz --original "$source" $way \
        --library target/debug/libcmz_gpu.so \
        --emulator "$(ls -t target/debug/build/cmz-gpu-emulator-*/out/libcmz_fakecuda.so | head -n 1)"
done

if [ "${CMZ_NO_NVCC:-}" ]; then
    step "PTX: not checked, CMZ_NO_NVCC is set"
    exit
fi
step "PTX"
if [ -z "${CMZ_NVCC:-}" ]; then
    exports=$(sh xtask/get-nvcc.sh target/nvcc --old-ptxas) || {
        echo "nvcc could not be installed: set CMZ_NVCC to nvcc 13.0.88, or CMZ_NO_NVCC to leave this check out" >&2
        exit 1
    }
    eval "$exports"
fi
cargo xtask kernels --check
