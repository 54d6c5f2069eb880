#!/bin/sh
# Runs every fuzz target, or those named, for so many seconds (10 if not said), beginning with what cmz_tests::fuzz::seeds has:
# fuzz/smoke.sh [seconds [target ...]]. Installs cargo-fuzz if it is missing; the stable toolchain is enough.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
[ $# -eq 0 ] || shift
cargo test --quiet --locked --workspace --test fuzz_smoke -- --ignored write_seeds >/dev/null
export RUSTC_BOOTSTRAP=1
# C code is instrumented, too, and GCC poisons a static array of zstd at the end of its scope, which lives on.
export CFLAGS="${CFLAGS:-} -fno-sanitize-address-use-after-scope"
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in ${@:-$(cargo fuzz list)}; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    # New inputs go to the first folder, the others are only read.
    cargo fuzz run "$target" "$corpus" "fuzz/seeds/$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1
done
