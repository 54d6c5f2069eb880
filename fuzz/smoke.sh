#!/bin/sh
# Runs every fuzz target for so many seconds (10 if not said), beginning with the golden
# files: fuzz/smoke.sh [seconds]. Installs cargo-fuzz if it is missing; the stable
# toolchain is enough.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-10}
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in $(cargo fuzz list); do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    case $target in
        open | open_fixed) seeds=tests/golden ;;
        *) seeds= ;;
    esac
    # New inputs go to the first folder, the others are only read.
    cargo fuzz run "$target" "$corpus" $seeds -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1
done
