#!/usr/bin/env bash
# Every fuzz target in turn, each for a while: bytes that nobody thought of go through the planner, the JSON and the files
# that are read, and the CPU path beside the f64 reference.
#
#   tests/fuzz/run.sh [seconds for each target, default 30]
#
# Needs a nightly compiler and cargo-fuzz (rustup toolchain install nightly; cargo install cargo-fuzz). The first build takes
# some minutes; it goes to target/fuzz, or to FUZZ_TARGET_DIR. A line for each target; below one that says FAILED stand the
# input and how to run it again:
#
#   cargo +nightly fuzz run --fuzz-dir tests/fuzz <target> tests/fuzz/artifacts/<target>/<file>
#
# With MARGIN_SOFTMAX_SHOW=1 `plan` and `differential` print what the bytes stand for; `cargo +nightly fuzz tmin`, with the
# same arguments, makes them fewer. What is found is kept in corpus/ and is where the next run goes on; seeds/ is where the
# first one begins, with what the targets make themselves (seeds.rs).
#
# The exit code is 0, 1 if a target fails, 2 for wrong arguments, 3 if something is missing: then nothing was run.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1-30}
if [[ $# -gt 1 || ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo 'usage: tests/fuzz/run.sh [seconds]' >&2
    exit 2
fi

missing() {
    echo "skipped: $1"
    exit 3
}
type -p cargo-fuzz >/dev/null || missing 'cargo-fuzz is not installed (cargo install cargo-fuzz)'
cargo +nightly --version >/dev/null 2>&1 || missing 'no nightly compiler (rustup toolchain install nightly)'

export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/../../target/fuzz}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
if ! cargo +nightly fuzz build --fuzz-dir . >"$temporary/build" 2>&1; then
    tail -n 40 "$temporary/build"
    echo 'FAILED: the targets do not build'
    exit 1
fi

failed=0
for name in plan objective evaluate_input checkpoint differential; do
    mkdir -p "corpus/$name" "artifacts/$name" "seeds/$name" "$temporary/$name"
    log=$temporary/$name.log
    options=(-max_total_time="$seconds" -rss_limit_mb=2048 -timeout=30 -print_final_stats=1)
    case $name in
        plan | differential) options+=(-max_len=512 -len_control=0) ;;
        *) options+=(-max_len=4096 -dict=words.dict) ;;
    esac
    if MARGIN_SOFTMAX_SEEDS=$temporary/$name cargo +nightly fuzz run --fuzz-dir . "$name" \
        "corpus/$name" "seeds/$name" "$temporary/$name" -- "${options[@]}" >"$log" 2>&1; then
        result=ok
    else
        failed=1
        result=FAILED
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    covered=$(sed -nE 's/.* cov: ([0-9]+) .*/\1/p' "$log" | tail -n 1)
    printf '%-15s %9s executions, %6s edges  %s\n' "$name" "${runs:-0}" "${covered:-0}" "$result"
    if [ $result = FAILED ]; then
        { grep -A3 'panicked at' "$log" || grep -A3 'ERROR: ' "$log" || tail -n 20 "$log"; } | cut -c 1-300
        file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        file=${file#"$PWD/"}
        echo "  again: cargo +nightly fuzz run --fuzz-dir tests/fuzz $name tests/fuzz/${file#./}"
    fi
done
exit $failed
