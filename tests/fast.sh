#!/usr/bin/env bash
# The fast loop: format, lints, and the unit, host and CPU tests, with neither a device nor wgpu. Once the dependencies are
# built it takes at most two minutes on two cores. tests/run.sh runs everything.
#
#   tests/fast.sh              all of it
#   tests/fast.sh every_slope  only the tests with this in their names
set -euo pipefail
cd "$(dirname "$0")/.."

# a change of one file compiles a part of the library and its tests anew, not all of them
export CARGO_INCREMENTAL=1
features=(--no-default-features --features cpu,serde)
targets=(--lib --test host --test cpu --test cpu_memory)

# step <command...>: heading, output, time
step() {
    local start=$SECONDS
    printf '\n== %s\n' "$*"
    "$@"
    printf -- '-- %d s\n' $((SECONDS - start))
}

# the library's light tests must stay light
light_tree() {
    local tree
    tree=$(cargo tree -p margin-softmax "${features[@]}" -e normal,build,dev --prefix none)
    ! grep -E '^(wgpu|naga|criterion|plotters|clap)' <<<"$tree"
}

step cargo fmt --all --check
step light_tree
step cargo clippy --release "${features[@]}" "${targets[@]}" -- -D warnings
step cargo test --release "${features[@]}" "${targets[@]}" -- "$@"
printf '\n%d s\n' "$SECONDS"
