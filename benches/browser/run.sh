#!/usr/bin/env bash
# This crate beside jax-js and TensorFlow.js, all in one headless Chromium: the same head, step by step in turn.
#
#   benches/browser/run.sh                      both shapes, 10 rounds; some minutes
#   benches/browser/run.sh --quick              the small shape, three rounds, no file
#   benches/browser/run.sh --tiles              this crate's presets and tiles too
#   benches/browser/run.sh --help               all options
#
# Needs Node 20, npm, Chromium (CHROMIUM=path, else where Debian puts it) and Rust's target wasm32-unknown-unknown. The adapter
# is SwiftShader, or with WEBGPU_ADAPTER=hardware what the browser chooses. Missing parts are reported, and the run goes
# on without it. Results: benches/results/browser.json.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benches/browser
target=wasm32-unknown-unknown

say() {
    printf '== %s\n' "$1" >&2
}

case " $* " in
    *' --help '*) ;;
    *)
        for tool in node npm cargo; do
            [ -n "$(type -p "$tool")" ] || { echo "$tool is missing" >&2; exit 1; }
        done
        say "packages: $here/node_modules"
        npm ci --silent --prefix "$here"
        node "$here/build.mjs"
        say 'the planner'
        cargo run --quiet --release -p web-build -- --inline web/planner >&2 || say 'without WebGPU rows of this crate: the planner does not build here'
        [ ! "$(type -p rustup)" ] || rustup target add "$target" >/dev/null 2>&1 || say "$target is missing"
        # a module for every browser, and one for those with relaxed SIMD
        for flags in simd128:+simd128 relaxed:+simd128,+relaxed-simd; do
            name=${flags%%:*}
            say "the CPU path, $name"
            RUSTFLAGS="-C target-feature=${flags#*:} -A dead_code" cargo build --quiet --release --target "$target" \
                --manifest-path "$here/head/Cargo.toml" --target-dir "target/browser/$name" &&
                cp "target/browser/$name/$target/release/browser_head.wasm" "target/browser/$name.wasm" ||
                say "without $name: it does not build here"
        done
        say 'the CPU path on several threads, with nightly Rust'
        cargo run --quiet --release -p web-build -- --threads --features threads --out target/browser/threads "$here/head" >&2 ||
            say 'without threads: they do not build here'
        ;;
esac
exec node "$here/run.mjs" "$@"
